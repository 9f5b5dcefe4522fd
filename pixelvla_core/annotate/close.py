"""When the gripper first closes in an episode: from its commands, or from its measured opening where there are none.

Shapes: T frames of an episode, A action dimensions, S state dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelvla_core.annotate.opening import Opening, agreement, find_opening
from pixelvla_core.annotate.profiles import OPTIONS, PROFILES, Profile, profile_of
from pixelvla_core.errors import DataError

_STILL = 0.1
"""Changes below this fraction of the full range are noise (OpenVLA's relabelling of Fractal has the same)."""
_RARE = 0.001
"""Fraction of values beyond the ends of a scale that are taken for outliers."""
_FALL = 0.25
"""Fraction of its range by which a measured opening must fall to be a closing."""
_BEGIN = 0.05
"""Fraction of its range by which it has fallen when closing begins."""
_DECLARE = f"Say it with profile=NAME, one of {OPTIONS}."


@dataclass(frozen=True)
class GripperSignal:
    """How to read when a gripper closes.

    Attributes:
        index: Dimension of the action that commands it; None if only the state tells.
        profile: What its values mean.
        report: Where that comes from, for people.
        opening: How the state measures the opening, used where ``index`` is None.
    """

    index: int | None
    profile: Profile
    report: str
    opening: Opening | None = None

    def closedness(self, actions_TA: np.ndarray) -> np.ndarray:
        """Return how far the gripper is told to be closed, float64[T + 1] in [0, 1]: before the episode, then after
        each command."""
        return _closedness(actions_TA[:, self.index], self.profile)


def first_close(signal: GripperSignal, actions_TA: np.ndarray, states_TS: np.ndarray | None = None) -> int | None:
    """Return the first frame on which an open gripper begins to close; None if there is none.

    A single frame of closing between open ones is a flicker and does not count, nor one of opening between closed
    ones; at the ends of the episode nothing tells a flicker and it counts.

    Args:
        signal: what the values mean.
        actions_TA: the episode's actions.
        states_TS: its states; needed only where the signal has no action.
    """
    if signal.index is None:
        return _first_fall(signal, states_TS)
    closed = signal.closedness(actions_TA) > 0.5
    now = bool(closed[0])
    for frame, told in enumerate(closed[1:]):
        if told == now or (frame + 2 < len(closed) and closed[frame + 2] == now):
            continue
        if told:
            return frame
        now = False
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
    opening = find_opening(state_names, states, profile_of(profile).state if profile is not None else 0)
    index = _index(action_names, opening)
    if index is None:
        return _from_state(opening, action_names)
    name, commands = action_names[index], [each[:, index].astype(np.float64) for each in actions]
    if profile is not None:
        return _checked(index, name, profile, commands, opening, states)
    guess = _guess(commands, name)
    found = agreement([_closedness(each, guess) for each in commands], opening, states)
    if found is None:
        raise DataError(
            f"Nothing tells which value of {name!r} closes the gripper: the state ({', '.join(state_names) or 'none'}) "
            "measures no opening that moves and whose direction its name tells. "
            f"{_DECLARE}"
        )
    if found.unclear:
        raise DataError(f"Which value of {name!r} closes the gripper cannot be told: {found}. {_DECLARE}")
    meant = guess if found.right else Profile(open=guess.closed, closed=guess.open, delta=guess.delta)
    shown = replace(found, correlation=abs(found.correlation))
    return GripperSignal(index, meant, f"of the action's {name!r} {meant}: {shown}")


def _closedness(values_T: np.ndarray, profile: Profile) -> np.ndarray:
    """How closed the gripper is told to be, float64[T + 1], the first before the episode."""
    if not profile.delta:
        told_T = np.clip((values_T - profile.open) / (profile.closed - profile.open), 0.0, 1.0)
        return np.concatenate([told_T[:1], told_T])
    changes_T = values_T / profile.closed
    changes_T = np.where(np.abs(changes_T) < _STILL, 0.0, changes_T)
    moving = np.flatnonzero(changes_T)
    # The first change is taken to change something: a gripper that is told to open was closed before.
    levels = [1.0 if len(moving) and changes_T[moving[0]] < 0 else 0.0]
    for change in changes_T:
        levels.append(min(max(levels[-1] + change, 0.0), 1.0))
    return np.array(levels)


def _first_fall(signal: GripperSignal, states_TS: np.ndarray | None) -> int | None:
    if signal.opening is None or states_TS is None:
        return None
    span = abs(signal.profile.open - signal.profile.closed)
    opening_T = signal.opening.measure(states_TS)
    # Of the two frames the wider one counts: this leaves out a single low frame.
    held_T = np.maximum(opening_T, np.append(opening_T[1:], opening_T[-1]))
    widest_T = np.maximum.accumulate(held_T)
    fallen = np.flatnonzero(widest_T - held_T > _FALL * span)
    if not len(fallen):
        return None
    wide = np.flatnonzero(held_T[: fallen[0]] >= widest_T[fallen[0]] - _BEGIN * span)
    return int(wide[-1]) + 1


def _index(names: Sequence[str], opening: Opening | None) -> int | None:
    """The dimension of the action that commands the gripper, None where only the state tells of one."""
    found = [index for index, name in enumerate(names) if "grip" in name.lower()]
    if len(found) == 1:
        return found[0]
    if not found and len(names) == 7:  # position, rotation, gripper: what every single-arm dataset has
        return 6
    if not found and opening is not None:
        return None
    raise DataError(
        f"{len(found)} of the action's dimensions ({', '.join(names)}) are named after a gripper; expected one. Name "
        "the dimensions in the dataset's meta/info.json."
    )


def _from_state(opening: Opening | None, action_names: Sequence[str]) -> GripperSignal:
    if opening is None or opening.low == opening.high:
        raise DataError(
            f"None of the action's dimensions ({', '.join(action_names)}) is named after a gripper, and the opening "
            "that the state measures never changes, so when the gripper closes cannot be told. Name the dimension."
        )
    meant = Profile(open=opening.high, closed=opening.low)
    return GripperSignal(None, meant, f"the action has no gripper; of the state's {opening} {meant}", opening)


def _guess(commands: Sequence[np.ndarray], name: str) -> Profile:
    """The profile that values look like, with a sign that is still to be checked: the higher one closes."""
    low, high = _ends(commands)
    if low == high:
        raise DataError(f"The gripper command {name!r} is always {low:g}, so that it has no meaning. {_DECLARE}")
    if _mostly_still(commands) and low < 0 < high:
        size = max(-low, high)
        return Profile(open=-size, closed=size, delta=True)
    return Profile(open=low, closed=high)


def _ends(commands: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = np.quantile(np.concatenate(commands), (_RARE, 1 - _RARE), method="nearest")
    return float(low), float(high)


def _mostly_still(commands: Sequence[np.ndarray]) -> bool:
    """Whether commands rest at 0, as changes do; those of one sign must more, as 0 is then the end of a scale too."""
    values_N = np.concatenate(commands)
    still = np.mean(np.abs(values_N) <= _STILL * np.abs(values_N).max())
    return bool(still > (0.5 if values_N.min() < 0 < values_N.max() else 0.8))


def _checked(
    index: int,
    name: str,
    profile: str,
    commands: Sequence[np.ndarray],
    opening: Opening | None,
    states: Sequence[np.ndarray] | None,
) -> GripperSignal:
    meant = profile_of(profile)
    if not _fits(commands, meant):
        low, high = _ends(commands)
        others = [f"{other} ({each})" for other, each in PROFILES.items() if _fits(commands, each)]
        raise DataError(
            f"The gripper profile {profile} says that {meant}, but the action's {name!r} runs from {low:g} to {high:g} "
            f"and {'rests near 0' if _mostly_still(commands) else 'does not rest at 0'}. Profiles with such values: "
            f"{', '.join(others) or 'none'}."
        )
    found = agreement([_closedness(each, meant) for each in commands], opening, states)
    if found is not None and found.strong and not found.right:
        raise DataError(
            f"The gripper profile {profile} says that {meant}, but the measured opening moves the other way: {found}. "
            "Leave profile out to take what the data say, or correct the state's names."
        )
    compared = found or "the data measure no opening that moves to compare it with"
    return GripperSignal(index, meant, f"profile {profile}, {meant}; {compared}")


def _fits(commands: Sequence[np.ndarray], profile: Profile) -> bool:
    """Whether values can be of a profile, whatever its sign; those that never change can be of any."""
    low, high = _ends(commands)
    if low == high:
        return True
    if profile.delta:
        return _mostly_still(commands) and max(-low, high) <= 1.5 * abs(profile.closed)
    bottom, top = sorted((profile.open, profile.closed))
    margin = 0.25 * (top - bottom)
    return bottom - margin <= low < bottom + margin and top - margin < high <= top + margin
