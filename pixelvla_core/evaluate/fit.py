"""Whether a model's actions mean in an environment what they meant in its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pixelvla_core.contract import ActionContract
from pixelvla_core.errors import ContractError


def check_fit(contract: ActionContract | None, facts: Mapping[str, Any]) -> None:
    """Refuse an environment whose actions or images mean something else than the checkpoint's.

    Args:
        contract: The checkpoint's.
        facts: What the environment says of itself: some of "names" (of the action's dimensions), "fps", "orientation",
            "gripper_open" and "gripper_closed". What it leaves out, or the contract does not know, is not compared.

    Raises:
        ContractError: the checkpoint has no contract, or names each fact that differs, with both values.
    """
    if contract is None:
        raise ContractError(
            "The checkpoint carries no action contract, so its outputs cannot be turned into physical units. Train it, "
            "or wrap a base that carries statistics."
        )
    gripper = contract.gripper
    known = {
        "fps": contract.fps or None,
        "orientation": contract.orientation,
        "gripper_open": gripper.open if gripper else None,
        "gripper_closed": gripper.closed if gripper else None,
        "dimensions": contract.dim,
    }
    asked = {**facts, "dimensions": len(facts["names"])} if "names" in facts else dict(facts)
    different = [
        f"{name}: {value!r} in the checkpoint, {asked[name]!r} in the environment"
        for name, value in known.items()
        if value is not None and asked.get(name) is not None and value != asked[name]
    ]
    if different:
        raise ContractError(
            f"The checkpoint's action contract does not fit the environment: {'; '.join(different)}. Its actions would "
            f"mean something else there. Evaluate in the world of its data, or train on data of this one."
        )
