"""The action contract: everything that must agree between data, model and robot before an action means anything."""

from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.contract.conventions import Gripper, Rotation
from pixelvla_core.contract.infer import infer_contract
from pixelvla_core.contract.lint import Finding, lint
from pixelvla_core.contract.statistics import Statistics

__all__ = ["ActionContract", "Finding", "Gripper", "Rotation", "Statistics", "infer_contract", "lint"]
