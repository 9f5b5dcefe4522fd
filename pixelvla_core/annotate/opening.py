"""How far a gripper is measured to be open, and whether that moves as its commands say.

Shapes: T frames of an episode, S state dimensions, C of them that measure the opening.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_OPENS = re.compile(r"width|aperture|opening|openness")
_CLOSES = re.compile(r"grip.*clos|clos.*grip")
_FINGERS = re.compile(r"finger|qpos.*grip|grip.*qpos")
"""Two fingers' places measure the opening; one joint or many do not (Robotiq's turn the other way)."""
_UNNAMED = re.compile(r"state_\d+")
"""What recordings call numbers that have no name; two fingers come last in those of LIBERO."""
_AGREES = 0.3
"""Least correlation of commanded and measured opening that tells the sign."""
_SHARE = 0.8
"""Least part of the episodes that must agree on the sign: fewer look like two conventions in one dataset."""
_LAG = 4
"""Frames by which the fingers may follow a command."""
_MIRRORED = -0.9
"""Correlation of two fingers that move in opposite directions."""


@dataclass(frozen=True)
class Opening:
    """Which numbers of the state measure the opening.

    Attributes:
        names: Theirs.
        columns: Theirs.
        sign: 1 if greater is wider, -1 if they measure how closed the gripper is.
        low: Narrowest measure in the sample, but for outliers.
        high: Widest.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    sign: int
    low: float = 0.0
    high: float = 0.0

    def measure(self, states_TS: np.ndarray) -> np.ndarray:
        """Return float64[T], the greater the wider."""
        values_TC = np.asarray(states_TS)[:, list(self.columns)].astype(np.float64)
        return self.sign * np.abs(values_TC).mean(1)

    def __str__(self) -> str:
        return f"{' and '.join(map(repr, self.names))}"


@dataclass(frozen=True)
class Agreement:
    """Of commands, as a guess reads them, with the measured opening.

    Attributes:
        correlation: Of commanded and measured opening; negative if the guess has the wrong sign.
        share: Part of the episodes whose own correlation has the same sign.
        opening: What measures it.
    """

    correlation: float
    share: float
    opening: Opening

    @property
    def right(self) -> bool:
        """Whether the guess has the right sign, as far as can be told."""
        return self.correlation > 0

    @property
    def strong(self) -> bool:
        """Whether command and opening move together at all, one way or the other."""
        return abs(self.correlation) >= _AGREES

    @property
    def unclear(self) -> bool:
        """Whether the sign cannot be told."""
        return not self.strong or self.share < _SHARE

    def __str__(self) -> str:
        return (
            f"commands to open and the opening measured by {self.opening} have correlation {self.correlation:.2f}, "
            f"with this sign in {self.share:.0%} of the episodes"
        )


def find_opening(names: Sequence[str], states: Sequence[np.ndarray] | None, plain: int = 0) -> Opening | None:
    """Return which numbers of the state measure the opening, None if none is known to.

    Args:
        names: of the state's dimensions.
        states: float[T, S] of some episodes.
        plain: what a single one named just after the gripper measures: 1 how open it is, -1 how closed, 0 unknown.
    """
    if not states:
        return None
    found = _columns(names, states, plain)
    if found is None:
        return None
    columns, sign = found
    opening = Opening(tuple(names[each] for each in columns), tuple(columns), sign)
    values_N = np.concatenate([opening.measure(each) for each in states])
    low, high = np.quantile(values_N, (0.01, 0.99), method="nearest")
    return Opening(opening.names, opening.columns, sign, float(low), float(high))


def _columns(names: Sequence[str], states: Sequence[np.ndarray], plain: int) -> tuple[list[int], int] | None:
    lower = [name.lower() for name in names]
    if opens := [place for place, name in enumerate(lower) if _OPENS.search(name)]:
        return opens, 1
    fingers = [place for place, name in enumerate(lower) if _FINGERS.search(name)]
    if len(fingers) == 2:
        return fingers, 1
    if closes := [place for place, name in enumerate(lower) if _CLOSES.search(name)]:
        return closes, -1
    grippers = [place for place, name in enumerate(lower) if "grip" in name]
    if len(grippers) == 2 and _are_mirrored(_values(states, grippers)):
        return grippers, 1
    if len(grippers) == 1:
        return (grippers, plain) if plain else None
    last = [len(names) - 2, len(names) - 1]
    if len(names) > 2 and all(map(_UNNAMED.fullmatch, names)) and _are_mirrored(_values(states, last)):
        return last, 1
    return None


def _values(states: Sequence[np.ndarray], columns: list[int]) -> np.ndarray:
    return np.concatenate([each[:, columns] for each in states])


def _are_mirrored(values_N2: np.ndarray) -> bool:
    """Whether two numbers are those of fingers that meet at 0, as LIBERO's are."""
    if not values_N2.std(0).all() or values_N2.mean(0).prod() >= 0:
        return False
    return bool(np.corrcoef(values_N2.T)[0, 1] < _MIRRORED)


def agreement(
    closedness: Sequence[np.ndarray], opening: Opening | None, states: Sequence[np.ndarray] | None
) -> Agreement | None:
    """Compare commands with the measured opening; None where nothing moves.

    Args:
        closedness: float[T + 1] of each episode, before it and after each command, as a guess reads the commands.
        opening: what measures the opening.
        states: float[T, S] of the same episodes.
    """
    if opening is None or states is None:
        return None
    pairs = [(1 - told[1:], opening.measure(each)) for told, each in zip(closedness, states, strict=True)]
    moving = [(told, seen) for told, seen in pairs if np.ptp(told) and np.ptp(seen)]
    lagged = [[(told[: len(told) - lag], seen[lag:]) for told, seen in moving] for lag in range(_LAG + 1)]
    found = [_correlation(each) for each in lagged]
    best = max(range(_LAG + 1), key=lambda lag: abs(found[lag] or 0.0))
    correlation = found[best]
    if correlation is None:
        return None
    votes = [vote for pair in lagged[best] if (vote := _correlation([pair])) is not None]
    return Agreement(correlation, float(np.mean([vote * correlation > 0 for vote in votes])), opening)


def _correlation(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    pairs = [(told, seen) for told, seen in pairs if len(told)]
    if not pairs:
        return None
    told_N, seen_N = (np.concatenate(each) for each in zip(*pairs, strict=True))
    if not np.ptp(told_N) or not np.ptp(seen_N):
        return None
    return float(np.corrcoef(told_N, seen_N)[0, 1])
