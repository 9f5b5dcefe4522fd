"""Reading an action contract off a dataset, as far as names and data settle it; the rest must be said, never guessed.

Shapes: N steps, A action dimensions, S state dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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


def _gripper(
    actions_NA: np.ndarray,
    names: Sequence[str],
    state: np.ndarray | None,
    state_names: Sequence[str],
    open_value: float | None,
    closed_value: float | None,
) -> Gripper | None:
    found = [index for index, name in enumerate(names) if "grip" in name.lower()]
    if len(found) != 1:
        if open_value is None and closed_value is None and not found:
            return None
        raise ContractError(
            f"{len(found)} of the action's dimensions are named after a gripper: {list(names)}. Expected exactly one; "
            "name the dimensions with action_names."
        )
    index = found[0]
    if open_value is not None and closed_value is not None:
        return Gripper(index=index, open=open_value, closed=closed_value)
    low, high = _levels(actions_NA[:, index], names[index])
    higher_is_open = _higher_is_open(actions_NA[:, index], names[index], state, state_names)
    return Gripper(index=index, open=high if higher_is_open else low, closed=low if higher_is_open else high)


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
