"""Whether a model's actions mean in an environment what they meant in its data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pixelvla_core.contract import ActionContract
from pixelvla_core.contract.names import same_names
from pixelvla_core.errors import ContractError

NONE = "none"
"""The rotation of an action that turns nothing, and the gripper's values of one that has none."""

_FIELDS = {"gripper_open": "gripper", "gripper_closed": "gripper", "gripper_delta": "gripper"}
"""Fact -> the field of the contract that holds it, where they differ."""


def check_fit(contract: ActionContract | None, facts: Mapping[str, Any]) -> None:
    """Refuse an environment whose actions or images mean something else than the checkpoint's.

    Warns of facts that the environment states and the checkpoint's contract does not know.

    Args:
        contract: The checkpoint's.
        facts: What the environment says of itself: some of "names" (of the action's dimensions), "fps", "rotation"
            (such as "euler_xyz_delta", or "none"), "gripper_open", "gripper_closed", "gripper_delta" (False where the
            other two stand alone), "camera", "orientation" and "frame". What it leaves out is not compared.

    Raises:
        ContractError: the checkpoint has no contract, or names each fact that differs, with both values.
    """
    if contract is None:
        raise ContractError(
            "The checkpoint carries no action contract, so its outputs cannot be turned into physical units. Train it, "
            "or wrap a base that carries statistics."
        )
    asked = {name: value for name, value in facts.items() if value is not None}
    if {"gripper_open", "gripper_closed"} <= set(asked):
        asked.setdefault("gripper_delta", False)
    stated = _stated(contract)
    known = {name: value for name, value in stated.items() if contract.knows(_FIELDS.get(name, name))}
    different = [
        f"{name}: {_show(value)} in the checkpoint, {_show(asked[name])} in the environment"
        for name, value in known.items()
        if name in asked and not _same(name, value, asked)
    ]
    if "names" in asked and len(asked["names"]) != contract.dim and "names" not in known:
        different.append(f"dimensions: {contract.dim} in the checkpoint, {len(asked['names'])} in the environment")
    if different:
        raise ContractError(
            f"The checkpoint's action contract does not fit the environment: {'; '.join(different)}. Its actions would "
            f"mean something else there. Evaluate in the world of its data, or train on data of this one."
        )
    _warn_unknown([name for name in stated if name in asked and name not in known])


def _same(name: str, value: Any, asked: Mapping[str, Any]) -> bool:
    if name == "names":
        return same_names(value, asked[name], changes=str(asked.get("rotation", "")).endswith("_delta"))
    return _plain(value) == _plain(asked[name])


def _stated(contract: ActionContract) -> dict[str, Any]:
    gripper = contract.gripper
    return {
        "names": contract.names,
        "fps": contract.fps,
        "camera": contract.camera,
        "orientation": contract.orientation,
        "frame": contract.frame,
        "rotation": NONE if contract.rotation is None else str(contract.rotation),
        "gripper_open": gripper.open if gripper else NONE,
        "gripper_closed": gripper.closed if gripper else NONE,
        "gripper_delta": gripper.delta if gripper else False,
    }


def _warn_unknown(names: list[str]) -> None:
    if names:
        warnings.warn(
            f"The checkpoint's action contract does not say {', '.join(names)}, so these were not compared with the "
            "environment's. If they differ, the robot will do something else than the model means. State them when the "
            "base is wrapped, such as contract.fps=5.",
            stacklevel=3,
        )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else list(value)


def _show(value: Any) -> str:
    return repr(_plain(value))
