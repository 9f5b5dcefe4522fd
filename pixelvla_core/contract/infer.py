"""Reading an action contract off a dataset, as far as names and data settle it; the rest must be said, never guessed.

Shapes: N steps, A action dimensions, S state dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.contract.conventions import ROTATIONS, Gripper, Rotation
from pixelvla_core.contract.statistics import Statistics
from pixelvla_core.errors import ContractError

_APERTURE = re.compile(r"finger|width|aperture|opening|qpos.*grip|grip.*qpos")
"""State names that measure how far the gripper is open; "gripper_position" is left out because it means either way."""

_EULER = re.compile(r"(d_?|delta_?)(roll|pitch|yaw)")
_TURNS = re.compile(r"(d_?|delta_?)?(roll|pitch|yaw|r[xyz]|rot|ax[xyz]|axis_angle|q[xyzw]|quat)(_?[xyzw0-9])?")
_CORRELATION = 0.3


def infer_contract(
    actions_NA: np.ndarray,
    *,
    names: Sequence[str],
    state: np.ndarray | None = None,
    state_names: Sequence[str] = (),
    gripper_open: float | None = None,
    gripper_closed: float | None = None,
    rotation: str | None = None,
    **facts: Any,
) -> ActionContract:
    """Build the contract of a dataset.

    Args:
        actions_NA: all actions in physical units.
        names: name of each action dimension; a gripper is found by "grip" in its name.
        state: float[N, S], used to tell which gripper value is open.
        state_names: name of each state dimension.
        gripper_open: the value of an open gripper, if known.
        gripper_closed: the value of a closed gripper, if known.
        rotation: "euler_xyz_delta" and the like, or "none", if known.
        facts: further fields of ``ActionContract``.

    Raises:
        ContractError: neither names nor data settle a convention; says what to declare.
    """
    gripper = _gripper(actions_NA, names, state, state_names, gripper_open, gripper_closed)
    mask = [gripper is None or index != gripper.index for index in range(len(names))]
    if gripper and max(abs(gripper.open), abs(gripper.closed)) > 1:
        mask[gripper.index] = True
    return ActionContract(
        names=tuple(names),
        statistics=Statistics.of(actions_NA),
        mask=tuple(mask),
        gripper=gripper,
        rotation=_rotation(names, rotation),
        **facts,
    )


def declared_facts(
    names: Sequence[str] | None,
    *,
    gripper_open: float | None = None,
    gripper_closed: float | None = None,
    rotation: str | None = None,
) -> dict[str, Any]:
    """What names and declarations settle without data, as keywords of ``ActionContract``.

    Args:
        names: name of each dimension; None if they are not known, and then neither of the others can be given.

    Returns:
        "names", "gripper" and "rotation" as far as they are settled, and "unknown" with those that are not. Names of
        which none is a gripper's settle that there is none.

    Raises:
        ContractError: a declaration cannot be, or says nothing without names.
    """
    if names is None:
        given = {"gripper_open": gripper_open, "gripper_closed": gripper_closed, "rotation": rotation}
        if said := [name for name, value in given.items() if value is not None]:
            raise ContractError(
                f"{' and '.join(said)} cannot be placed without the names of the action's dimensions. Give names too, "
                "such as names=[x,y,z,roll,pitch,yaw,gripper]."
            )
        return {"unknown": ("names", "gripper", "rotation")}
    facts: dict[str, Any] = {"names": tuple(names)}
    gripper = _declared_gripper(names, gripper_open, gripper_closed)
    if gripper is not None or _gripper_index(names) is None:
        facts["gripper"] = gripper
    try:
        facts["rotation"] = _rotation(names, rotation)
    except ContractError:
        if rotation is not None:
            raise
    return {**facts, "unknown": tuple(name for name in ("gripper", "rotation") if name not in facts)}


def _gripper(
    actions_NA: np.ndarray,
    names: Sequence[str],
    state: np.ndarray | None,
    state_names: Sequence[str],
    open_value: float | None,
    closed_value: float | None,
) -> Gripper | None:
    declared = _declared_gripper(names, open_value, closed_value)
    found = _gripper_index(names)
    if declared is not None or found is None:
        return declared
    low, high = _levels(actions_NA[:, found], names[found])
    higher_is_open = _higher_is_open(actions_NA[:, found], names[found], state, state_names)
    return Gripper(index=found, open=high if higher_is_open else low, closed=low if higher_is_open else high)


def _gripper_index(names: Sequence[str]) -> int | None:
    """The dimension that is named after a gripper, None if none is."""
    found = [index for index, name in enumerate(names) if "grip" in name.lower()]
    if len(found) > 1:
        raise ContractError(
            f"{len(found)} of the action's dimensions are named after a gripper: {list(names)}. Expected exactly one; "
            "name the dimensions otherwise."
        )
    return found[0] if found else None


def _declared_gripper(names: Sequence[str], open_value: float | None, closed_value: float | None) -> Gripper | None:
    """The gripper that two given values describe, None if none is given."""
    if open_value is None and closed_value is None:
        return None
    if open_value is None or closed_value is None:
        given, other = ("closed", "open") if open_value is None else ("open", "closed")
        raise ContractError(
            f"gripper_{given} is given, but gripper_{other} is not, and one does not tell the other. {_DECLARE}"
        )
    for name, value in (("gripper_open", open_value), ("gripper_closed", closed_value)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ContractError(f"{name} is {value!r}; expected a number, the value of the action that means it.")
    if (index := _gripper_index(names)) is None:
        raise ContractError(
            f"gripper_open and gripper_closed are given, but none of the action's dimensions is named after a gripper: "
            f"{list(names)}. Name them, the gripper's with 'grip' in its name."
        )
    return Gripper(index=index, open=float(open_value), closed=float(closed_value))


_DECLARE = "Set gripper_open and gripper_closed to the values that mean open and closed."


def _levels(values_N: np.ndarray, name: str) -> tuple[float, float]:
    """The two ends of a gripper's scale: (0, 1) or (-1, 1)."""
    low, high = float(values_N.min()), float(values_N.max())
    for levels in ((0.0, 1.0), (-1.0, 1.0)):
        if np.allclose((low, high), levels, atol=0.02):
            return levels
    raise ContractError(
        f"The gripper dimension {name!r} runs from {low:g} to {high:g}, which is neither [0, 1] nor [-1, 1], so its "
        f"convention cannot be read off the data. {_DECLARE}"
    )


def _higher_is_open(values_N: np.ndarray, name: str, state: np.ndarray | None, state_names: Sequence[str]) -> bool:
    """Compare the commands with the measured opening."""
    columns = [index for index, text in enumerate(state_names) if _APERTURE.search(text.lower())]
    if state is None or not columns:
        raise ContractError(
            f"Nothing tells which value of {name!r} opens the gripper: the state ({list(state_names) or 'none'}) has "
            f"no finger or width to compare with. {_DECLARE}"
        )
    opening_N = np.abs(state[:, columns]).mean(1)
    if opening_N.std() == 0:
        raise ContractError(f"The gripper's opening never changes in the data, so {name!r} has no meaning. {_DECLARE}")
    correlation = float(np.corrcoef(values_N, opening_N)[0, 1])
    if abs(correlation) < _CORRELATION:
        raise ContractError(
            f"The commands {name!r} and the measured opening hardly agree (correlation {correlation:.2f}), so which "
            f"value is open cannot be told. {_DECLARE}"
        )
    return correlation > 0


def _rotation(names: Sequence[str], declared: str | None) -> Rotation | None:
    if declared is not None and not isinstance(declared, str):
        raise ContractError(f"rotation is {declared!r}; expected one of {', '.join(ROTATIONS)}, perhaps with _delta.")
    lower = [name.lower() for name in names]
    turning = [index for index, name in enumerate(lower) if _TURNS.fullmatch(name)]
    if declared is not None:
        return None if declared == "none" else Rotation.parse(declared, turning[0] if turning else 3)
    unnamed = all(name.startswith("action_") for name in lower)
    if not turning and not unnamed:
        return None
    if len(turning) == 3 and all(_EULER.fullmatch(lower[index]) for index in turning):
        return Rotation(kind="euler_xyz", start=turning[0], delta=True)
    shown = "has no names" if unnamed else f"is named {list(names)}"
    raise ContractError(
        f"The action {shown}, which does not tell how it turns the tool: Euler angles, axis and angle or a quaternion, "
        f"absolute or a change. Set rotation to one of {', '.join(ROTATIONS)}, with _delta behind for a change."
    )
