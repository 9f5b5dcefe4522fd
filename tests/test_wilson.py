"""Intervals and tests against values from elsewhere, and against their own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.evaluate.statistics import Z_95, Rate, compare, mcnemar, overlap, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # As R's prop.test(x, n, correct = FALSE); the middle four are the examples of Newcombe (1998), table I.
        (10, 20, 0.2992980, 0.7007020),
        (81, 263, 0.2552957, 0.3661639),
        (15, 148, 0.0624126, 0.1604887),
        (0, 20, 0.0, 0.1611252),
        (1, 29, 0.0061093, 0.1717612),
        (100, 100, 0.9630065, 1.0),
    ],
)
def test_wilson_gives_published_values(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_just_rejects(case):
    successes, trials = case
    rate = successes / trials
    for end in wilson(successes, trials):
        if 0 < end < 1:
            assert abs(rate - end) / math.sqrt(end * (1 - end) / trials) == pytest.approx(Z_95)
    low, high = wilson(successes, trials)
    assert 0 <= low <= rate <= high <= 1
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


def test_wilson_of_nothing_says_nothing_and_of_nonsense_raises():
    assert wilson(0, 0) == (0.0, 1.0)
    assert math.isnan(Rate(0, 0).value)
    with pytest.raises(ValueError, match="5 successes in 4 trials"):
        wilson(5, 4)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    # binom.test(6, 16), binom.test(0, 5), binom.test(3, 12), binom.test(7, 14) in R.
    [(6, 10, 0.4544983), (0, 5, 0.0625), (3, 9, 0.1459961), (7, 7, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(first, second, p_value):
    assert mcnemar(first, second) == pytest.approx(p_value, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_does_not_care_who_is_first(first, second):
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_copes_with_many_pairs():
    assert 0 < mcnemar(900, 1100) < 1e-4


def test_compare_uses_shared_episodes_only():
    found = compare({"a": True, "b": True, "c": False, "x": True}, {"a": False, "b": True, "c": False, "y": False})
    assert (found.pairs, found.first, found.second) == (3, 2 / 3, 1 / 3)
    assert found.difference == pytest.approx(1 / 3)
    assert found.p_value == 1.0


def test_overlap_of_masks():
    first, second = np.zeros((2, 4, 4), bool)
    assert overlap(first, second) == 1.0
    first[:2] = True
    assert overlap(first, second) == 0.0
    second[1:] = True
    assert overlap(first, second) == 4 / 16
