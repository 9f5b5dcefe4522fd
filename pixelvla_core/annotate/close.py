"""When the gripper first closes in an episode, from the commands of its actions.

Shapes: T frames of an episode, A action dimensions, S state dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelvla_core.annotate.profiles import PROFILES, Profile, profile_of
from pixelvla_core.errors import DataError

_APERTURE = re.compile(r"finger|width|aperture|opening|qpos.*grip|grip.*qpos")
"""Names of states that measure the opening; "gripper_position" means either way and is left out."""
_AGREES = 0.3
"""Least correlation of command and measured opening that tells the sign."""
_LAG = 4
"""Frames by which the fingers may follow a command."""
_DECLARE = f"Say it with profile=NAME; known: {', '.join(PROFILES)}."


@dataclass(frozen=True)
class GripperSignal:
    """How to read the gripper's command.

    Attributes:
        index: Its dimension in the action.
        profile: What its values mean.
        report: Where that comes from, for people.
    """

    index: int
    profile: Profile
    report: str

    def closedness(self, actions_TA: np.ndarray) -> np.ndarray:
        """Return how far the gripper is told to be closed after each frame, float[T] in [0, 1]."""
        values = actions_TA[:, self.index].astype(np.float64)
        closed, opened = self.profile.closed, self.profile.open
        if not self.profile.delta:
            return np.clip((values - opened) / (closed - opened), 0.0, 1.0)
        level, levels = 0.0, []
        for change in values / closed:
            level = min(max(level + change, 0.0), 1.0)
            levels.append(level)
        return np.array(levels)


def first_close(signal: GripperSignal, actions_TA: np.ndarray, states_TS: np.ndarray | None = None) -> int | None:
    """Return the first frame on which an open gripper is told to close; None if there is none.

    A single frame of closing between open ones is a flicker and does not count, except at the end of the episode.

    Args:
        signal: what the values mean.
        actions_TA: the episode's actions.
        states_TS: not needed; commands come before what the fingers do.
    """
    closed = signal.closedness(actions_TA) > 0.5
    starts = np.flatnonzero(closed[1:] & ~closed[:-1]) + 1
    for start in starts:
        if start == len(closed) - 1 or closed[start + 1]:
            return int(start)
    return None


def resolve_gripper(
    action_names: Sequence[str],
    state_names: Sequence[str],
    actions: Sequence[np.ndarray],
    states: Sequence[np.ndarray] | None,
    profile: str | None,
) -> GripperSignal:
    """Settle what the gripper's values mean.

    Args:
        action_names: of the action's dimensions.
        state_names: of the state's; those that measure the gripper's opening tell the sign.
        actions: float[T, A] of some episodes.
        states: float[T, S] of the same ones, or None.
        profile: a name, which the data must not contradict; None to infer it.

    Raises:
        DataError: there is no gripper, the sign cannot be told, or the data contradict the profile.
    """
    index = _index(action_names)
    agreement = _agreement(index, state_names, actions, states)
    if profile is not None:
        return _checked(index, profile, agreement)
    if agreement is None:
        raise DataError(
            f"Nothing tells which value of {action_names[index]!r} closes the gripper: the state "
            f"({', '.join(state_names) or 'none'}) measures no opening that moves. {_DECLARE}"
        )
    if abs(agreement) < _AGREES:
        raise DataError(
            f"The commands {action_names[index]!r} and the measured opening hardly agree (correlation "
            f"{agreement:.2f}), so which value closes the gripper cannot be told. {_DECLARE}"
        )
    low, high = _levels(np.concatenate([each[:, index] for each in actions]), action_names[index])
    opened, closed = (high, low) if agreement > 0 else (low, high)
    report = f"{closed:g} closes and {opened:g} opens: command and measured opening have correlation {agreement:.2f}"
    return GripperSignal(index, Profile(open=opened, closed=closed), report)


def _index(names: Sequence[str]) -> int:
    found = [index for index, name in enumerate(names) if "grip" in name.lower()]
    if len(found) == 1:
        return found[0]
    if not found and len(names) == 7:  # position, rotation, gripper: what every single-arm dataset has
        return 6
    raise DataError(
        f"{len(found)} of the action's dimensions ({', '.join(names)}) are named after a gripper; expected one. Name "
        "the dimensions in the dataset's meta/info.json."
    )


def _agreement(
    index: int, state_names: Sequence[str], actions: Sequence[np.ndarray], states: Sequence[np.ndarray] | None
) -> float | None:
    """The strongest correlation of command and measured opening over the lags; None where nothing moves."""
    columns = [place for place, name in enumerate(state_names) if _APERTURE.search(name.lower())]
    if not columns or states is None:
        return None
    found = [_correlation(index, columns, lag, actions, states) for lag in range(_LAG + 1)]
    known = [value for value in found if value is not None]
    return max(known, key=abs) if known else None


def _correlation(
    index: int, columns: Sequence[int], lag: int, actions: Sequence[np.ndarray], states: Sequence[np.ndarray]
) -> float | None:
    long = [(a, s) for a, s in zip(actions, states, strict=True) if len(a) > lag + 1]
    if not long:
        return None
    command = np.concatenate([a[: len(a) - lag, index] for a, _ in long])
    opening = np.concatenate([np.abs(s[lag:][:, columns]).mean(1) for _, s in long])
    if command.std() == 0 or opening.std() == 0:
        return None
    return float(np.corrcoef(command, opening)[0, 1])


def _checked(index: int, name: str, agreement: float | None) -> GripperSignal:
    profile = profile_of(name)
    if agreement is None or profile.delta:
        return GripperSignal(index, profile, f"profile {name}; the data measure no opening to compare it with")
    higher_opens = profile.open > profile.closed
    if abs(agreement) >= _AGREES and (agreement > 0) != higher_opens:
        raise DataError(
            f"The gripper profile {name} says that the {'higher' if higher_opens else 'lower'} value opens, but the "
            f"measured opening moves the other way (correlation {agreement:.2f}). Leave profile out to take what the "
            "data say, or correct the state's names."
        )
    return GripperSignal(index, profile, f"profile {name}; correlation with the measured opening {agreement:.2f}")


def _levels(values_N: np.ndarray, name: str) -> tuple[float, float]:
    """The two ends of an absolute gripper's scale, refused where the values look like changes."""
    low, high = float(values_N.min()), float(values_N.max())
    if low < 0 < high and np.mean(np.isclose(values_N, 0.0, atol=0.02)) > 0.5:
        raise DataError(
            f"The gripper dimension {name!r} is 0 most of the time, between {low:g} and {high:g}: it seems to hold "
            f"changes. {_DECLARE}"
        )
    return low, high
