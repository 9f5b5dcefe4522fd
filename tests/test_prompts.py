"""Prompts: what is refused, and how any mixture becomes a padded batch in the image's coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.errors import UserError
from pixelvla_core.geometry import Affine, coverage
from pixelvla_core.model.collate import CELLS_PER_PATCH, collate_actions, collate_masks, collate_prompts
from pixelvla_core.model.prompt_encoder import TOKEN_TYPES
from pixelvla_core.prompts import Box, Line, Mask, Point

GRID = (4, 4)
quick = settings(deadline=None, max_examples=50)
region = np.zeros((20, 30), bool)
region[5:9, 10:20] = True


@pytest.mark.parametrize(
    "make",
    [
        lambda: Point(1.2, 0.5),
        lambda: Point(0.5, math.nan),
        lambda: Line(((0.1, 0.1), (0.1, 0.1))),
        lambda: Line(((0.1, 0.1),)),
        lambda: Line(((0.1, 0.1), (0.5, math.inf))),
        lambda: Box(0.5, 0.1, 0.5, 0.4),
        lambda: Box(0.6, 0.1, 0.5, 0.4),
        lambda: Box(-0.1, 0.1, 0.5, 0.4),
        lambda: Mask(np.zeros((4, 4), bool)),
        lambda: Mask(np.ones((4, 4), np.uint8)),
        lambda: Mask(np.ones((1, 4, 4), bool)),
        lambda: Mask([[True]]),
        lambda: Mask(np.ones((0, 0), bool)),
        lambda: Point("a", 0),
        lambda: Box(0.1, None, 0.2, 0.3),
        lambda: Line(((0.1, 0.1, 0.1), (0.2, 0.2, 0.2))),
        lambda: Line((0.1, 0.2)),
        lambda: Line("ab"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused_with_words(make):
    with pytest.raises(UserError, match=r"\. "):
        make()


def test_a_line_may_be_given_as_lists_or_as_an_array():
    wanted = Line(((0.25, 0.5), (0.75, 1.0)))
    assert Line([[0.25, 0.5], [0.75, 1.0]]) == Line(np.array(wanted.vertices)) == wanted


def types(batch, row: int) -> list[str]:
    return [TOKEN_TYPES[i] for i in batch.type_BK[row][batch.valid_BK[row]].tolist()]


def test_any_mixture_is_laid_out_in_order_and_padded():
    rows = [
        [Point(0.1, 0.2), Point(0.3, 0.4, positive=False)],
        [],
        [Box(0.1, 0.2, 0.6, 0.7), Mask(region), Line(((0, 0), (0.5, 0.5), (1, 0)))],
        [Mask(region), Mask(~region)],
    ]
    batch = collate_prompts(rows, [Affine()] * 4, GRID)
    assert types(batch, 0) == ["point_positive", "point_negative"]
    assert types(batch, 1) == []
    assert types(batch, 2) == ["box_top_left", "box_bottom_right", "mask", "line_start", "line_vertex", "line_end"]
    assert types(batch, 3) == ["mask", "mask"]
    assert batch.coords_BK2[0, :2].tolist() == pytest.approx(np.array([[0.1, 0.2], [0.3, 0.4]]))
    assert batch.mask_slot_BM.tolist() == [[-1, -1], [-1, -1], [2, -1], [0, 1]]
    assert batch.masks_BMHW.shape == (4, 2, 4 * CELLS_PER_PATCH, 4 * CELLS_PER_PATCH)
    assert not batch.masks_BMHW[:2].any()
    assert batch.coords_BK2[2, 2].tolist() == pytest.approx([15 / 30, 7 / 20], abs=1e-6)


def test_without_prompts_there_is_no_batch():
    assert collate_prompts([(), ()], [Affine()] * 2, GRID) is None
    assert collate_masks([None, np.zeros((0, 4, 4), bool)], [Affine()] * 2, GRID) is None


def test_what_a_crop_cuts_away_is_gone_and_the_rest_is_clipped():
    right = Affine.crop(0.5, 0.0, 1.0, 1.0)
    rows = [[Point(0.2, 0.5), Box(0.25, 0.2, 0.75, 0.4), Mask(region), Line(((0.0, 0.5), (1.0, 0.5)))]]
    batch = collate_prompts(rows, [right], GRID)
    assert types(batch, 0) == ["box_top_left", "box_bottom_right", "mask", "line_start", "line_end"]
    assert batch.coords_BK2[0, :2].tolist() == [[0.0, pytest.approx(0.2)], [pytest.approx(0.5), pytest.approx(0.4)]]
    assert batch.coords_BK2[0, 3:].tolist() == [[0.0, 0.5], [1.0, 0.5]]
    away = Affine.crop(0.0, 0.8, 1.0, 1.0)
    assert collate_prompts([[Mask(region), Point(0.5, 0.1)]], [away], GRID) is None


def test_mirrored_boxes_keep_their_corners_in_order():
    batch = collate_prompts([[Box(0.1, 0.2, 0.3, 0.6)]], [Affine.rotate180()], GRID)
    assert batch.coords_BK2[0].tolist() == [pytest.approx([0.7, 0.4]), pytest.approx([0.9, 0.8])]


@quick
@given(st.data())
def test_masks_are_warped_by_area_and_cropped_ones_are_not_valid(data):
    x0, y0 = data.draw(st.floats(0, 0.7)), data.draw(st.floats(0, 0.7))
    affine = Affine.crop(x0, y0, x0 + 0.3, y0 + 0.3)
    batch = collate_masks([region[None], None], [affine, Affine()], GRID)
    expected = coverage(region, affine, 16, 16)
    assert torch.equal(batch.masks_BMHW[0, 0], torch.from_numpy(expected))
    assert batch.valid_BM.tolist() == [[bool(expected.sum() > 1e-6)], [False]]


def test_masks_of_different_number_and_size_share_a_batch():
    tiny = np.zeros((1, 480, 640), bool)
    tiny[0, 100, 200] = True
    batch = collate_masks([tiny, np.stack([region, ~region, np.zeros_like(region)])], [Affine()] * 2, GRID)
    assert batch.valid_BM.tolist() == [[True, False, False], [True, True, False]]
    assert batch.masks_BMHW[1, :2].sum(0).numpy() == pytest.approx(np.ones((16, 16)), abs=1e-6)


def test_actions_are_stacked_and_valid_unless_said_otherwise():
    actions = [np.ones((3, 2)), np.zeros((3, 2))]
    stacked, valid = collate_actions(actions, [None, np.array([True, False, False])])
    assert stacked.dtype == torch.float32
    assert stacked.shape == (2, 3, 2)
    assert valid.tolist() == [[True] * 3, [True, False, False]]
