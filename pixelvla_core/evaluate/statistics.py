"""How sure a success rate is, whether two of them differ, and how well two masks agree."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


@dataclass(frozen=True)
class Rate:
    """Successes among trials."""

    successes: int
    trials: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """Count outcomes."""
        found = list(outcomes)
        return cls(sum(found), len(found))

    @property
    def value(self) -> float:
        """The share of successes; NaN without a trial."""
        return self.successes / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson 95 % interval."""
        return wilson(self.successes, self.trials)


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a binomial proportion; (0, 1) without a trial.

    Unlike the normal approximation it stays within [0, 1] and has width at 0 and 100 %.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    rate, square = successes / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the exact McNemar test.

    Of the pairs that disagree, each is as likely won by either side if the two do not differ; the test is the exact
    two-sided binomial one. Pairs that agree say nothing.

    Args:
        only_first: Pairs in which only the first succeeded.
        only_second: Pairs in which only the second succeeded.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts of pairs cannot be negative: {only_first}, {only_second}")
    pairs, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(pairs, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**pairs)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same episodes.

    Attributes:
        pairs: Episodes that both ran.
        first, second: Their success rates on those.
        p_value: Of the exact McNemar test.
    """

    pairs: int
    first: float
    second: float
    p_value: float

    @property
    def difference(self) -> float:
        """Rate of the first less that of the second."""
        return self.first - self.second


def compare(first: Mapping[Hashable, bool], second: Mapping[Hashable, bool]) -> Comparison:
    """Compare the outcomes of two models by episode; keys that only one of them has are left out."""
    shared = [key for key in first if key in second]
    only_first = sum(first[key] and not second[key] for key in shared)
    only_second = sum(second[key] and not first[key] for key in shared)
    rates = [Rate.of(outcomes[key] for key in shared).value for outcomes in (first, second)]
    return Comparison(len(shared), rates[0], rates[1], mcnemar(only_first, only_second))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return intersection over union of two masks, bool[H, W]; 1 if both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0
