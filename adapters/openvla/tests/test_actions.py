"""Action ids and units, against the official tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixelvla_openvla.actions import ActionTokenizer, action_stats, unnormalise

from pixelvla_core.api import UserError

OFFICIAL = ActionTokenizer(32000)
UNIT = st.floats(-1, 1)


def test_bins_are_the_official_ones(reference):
    assert np.array_equal(OFFICIAL.edges, reference["bins.edges"].numpy())
    assert np.array_equal(OFFICIAL.centers, reference["bins.centers"].numpy())


def test_encoding_table(reference):
    assert OFFICIAL.encode(reference["tok.actions"].numpy()).tolist() == reference["tok.ids"].tolist()


def test_decoding_table(reference):
    """With ids outside the action range, which clip to the ends."""
    assert np.array_equal(OFFICIAL.decode(reference["detok.ids"].numpy()), reference["detok.normalized"].numpy())


@given(st.lists(UNIT, min_size=1, max_size=8), st.integers(300, 40000))
def test_decoding_an_encoded_action_is_off_by_half_a_bin_at_most(values, vocab_size):
    tokenizer = ActionTokenizer(vocab_size)
    ids = tokenizer.encode(np.array(values))
    assert ((ids >= vocab_size - 256) & (ids < vocab_size)).all()
    assert np.abs(tokenizer.decode(ids) - values).max() <= 1 / 255 + 1e-12


@given(UNIT, UNIT)
def test_larger_values_never_have_larger_ids(a, b):
    small, large = OFFICIAL.encode(np.array(sorted((a, b))))
    assert large <= small


@given(st.lists(st.tuples(UNIT, UNIT, st.floats(0.01, 2), st.booleans()), min_size=1, max_size=8))
def test_unnormalise_inverts_normalise_where_the_mask_says_so(rows):
    normalised, low, span, mask = map(np.array, zip(*rows, strict=True))
    out = unnormalise(normalised, {"q01": low, "q99": low + span, "mask": mask})
    assert np.array_equal(out[~mask], normalised[~mask])
    assert np.allclose((2 * (out - low) / span - 1)[mask], normalised[mask], atol=1e-9)


def test_a_missing_mask_means_that_all_dimensions_are_normalised():
    assert unnormalise(np.zeros(2), {"q01": [0, 2], "q99": [2, 4]}).tolist() == [1, 3]


def test_the_data_set_may_be_left_out_only_if_there_is_one():
    one, two = {"bridge_orig": {"action": 1}}, {"bridge_orig": {"action": 1}, "fractal": {"action": 2}}
    assert action_stats(one, None) == 1
    assert action_stats(two, "fractal") == 2
    with pytest.raises(UserError, match=r"unnorm_key is missing.*2 data sets: bridge_orig, fractal"):
        action_stats(two, None)
    with pytest.raises(UserError, match="Did you mean 'bridge_orig'"):
        action_stats(two, "bridge-orig")
    with pytest.raises(UserError, match="0 data sets: none"):
        action_stats({}, None)
