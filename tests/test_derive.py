"""Prompts derived from masks: always inside, or exactly around, whatever the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelvla_core.annotations.derive import Inner, crossed, depth, derive_line, derive_point, derive_prompt
from pixelvla_core.data.prompting import NONE, PromptMix, derive_prompts
from pixelvla_core.errors import DataError, RecipeError
from pixelvla_core.prompts import KINDS
from pixelvla_core.recipe.schema import PROMPT_KINDS


def one_pixel(row: int, column: int, shape: tuple[int, int] = (9, 14)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row, column] = True
    return mask


def ring() -> np.ndarray:
    y, x = np.mgrid[:40, :40]
    radius = np.hypot(y - 20, x - 20)
    return (radius < 18) & (radius > 12)


shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
masks = hnp.arrays(np.bool_, shapes).filter(np.any)
rectangles = st.builds(
    lambda top, left, height, width: np.pad(np.ones((height, width), bool), ((top, 3), (left, 2))),
    *(st.integers(0, 9), st.integers(0, 9), st.integers(1, 30), st.integers(1, 30)),
)
any_mask = st.one_of(masks, rectangles, st.just(np.eye(17, dtype=bool)), st.just(ring()))
seeds = st.integers(0, 2**32)


def value_at(mask: np.ndarray, x: float, y: float) -> bool:
    height, width = mask.shape
    return bool(mask[int(y * height), int(x * width)])


@given(any_mask, seeds)
@example(one_pixel(0, 0), 0)
@example(one_pixel(8, 13), 1)
@settings(deadline=None)
def test_points_are_inside(mask, seed):
    point = derive_prompt(mask, "point", np.random.default_rng(seed))
    assert point.positive
    assert value_at(mask, point.x, point.y)


@given(any_mask, seeds)
@example(one_pixel(0, 0), 0)
@example(one_pixel(8, 13), 1)
@settings(deadline=None)
def test_lines_are_inside_all_the_way(mask, seed):
    (x0, y0), (x1, y1) = derive_prompt(mask, "line", np.random.default_rng(seed)).vertices
    assert (x0, y0) != (x1, y1)
    for fraction in np.linspace(0, 1, 301):
        x, y = x0 + fraction * (x1 - x0), y0 + fraction * (y1 - y0)
        assert _near_inside(mask, x, y), f"the line leaves the mask at ({x}, {y})"


def _near_inside(mask: np.ndarray, x: float, y: float) -> bool:
    """Inside, or on the edge of a set pixel within rounding."""
    nudges = (-1e-9, 0.0, 1e-9)
    return any(
        value_at(mask, min(max(x + dx, 0), 1 - 1e-12), min(max(y + dy, 0), 1 - 1e-12)) for dx in nudges for dy in nudges
    )


@given(any_mask, seeds)
@settings(deadline=None)
def test_boxes_have_the_outer_edges_of_the_pixels(mask, seed):
    height, width = mask.shape
    box = derive_prompt(mask, "box", np.random.default_rng(seed))
    rows, columns = np.nonzero(mask)
    pixels = np.array([box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height])
    np.testing.assert_allclose(pixels, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-9)


@given(any_mask, seeds)
@settings(deadline=None)
def test_prompts_are_the_same_when_the_inner_pixels_are_known_already(mask, seed):
    alone, shared = np.random.default_rng(seed), np.random.default_rng(seed)
    inner = Inner(mask)
    for derive in (derive_point, derive_line, derive_point, derive_line):
        assert derive(mask, alone) == derive(mask, shared, inner)


@given(any_mask)
@settings(deadline=None)
def test_a_mask_prompt_is_the_mask(mask):
    assert derive_prompt(mask, "mask", np.random.default_rng(0)).array is mask


@given(any_mask)
@settings(deadline=None)
def test_depth_is_the_distance_counted_one_by_one(mask):
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    expected = np.zeros(padded.shape, int)
    for row, column in np.argwhere(padded):
        expected[row, column] = np.abs(outside - (row, column)).sum(1).min()
    np.testing.assert_array_equal(depth(mask), expected[1:-1, 1:-1])


@given(st.tuples(*[st.integers(0, 15)] * 4))
@settings(deadline=None)
def test_crossed_pixels_hold_every_place_of_the_segment(ends):
    start, end = np.array(ends[:2]), np.array(ends[2:])
    pixels = set(map(tuple, crossed(start, end).tolist()))
    assert tuple(start) in pixels
    assert tuple(end) in pixels
    for fraction in np.random.default_rng(0).random(100):
        place = start + 0.5 + fraction * (end - start)
        if np.abs(place - np.round(place)).min() > 1e-6:
            assert tuple(np.floor(place).astype(int).tolist()) in pixels


def test_points_keep_away_from_the_edge_of_an_object_with_room():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    rng = np.random.default_rng(0)
    points = [derive_prompt(mask, "point", rng) for _ in range(200)]
    depths = [depth(mask)[int(point.y * 60), int(point.x * 60)] for point in points]
    assert min(depths) >= 10
    assert len({(point.x, point.y) for point in points}) > 100, "clicks differ"


def test_strokes_on_an_object_with_room_have_a_length():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    rng = np.random.default_rng(0)
    lines = [derive_prompt(mask, "line", rng).vertices for _ in range(100)]
    assert np.mean([np.hypot(*np.subtract(*line)) for line in lines]) > 0.1


@pytest.mark.parametrize("kind", ["point", "line", "box", "mask"])
def test_the_same_seed_gives_the_same_prompt(kind):
    first, second = (derive_prompt(ring(), kind, np.random.default_rng(5)) for _ in range(2))
    assert (first == second) if kind != "mask" else (first.array == second.array).all()


@pytest.mark.parametrize("kind", ["point", "line", "box", "mask"])
def test_an_empty_mask_is_refused(kind):
    with pytest.raises(DataError, match="on an empty mask"):
        derive_prompt(np.zeros((4, 4), bool), kind, np.random.default_rng(0))


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'point'"):
        derive_prompt(ring(), "points", np.random.default_rng(0))


def test_a_mix_draws_in_proportion():
    mix = PromptMix({"none": 1, "point": 2, "point+box": 1, "line": 0})
    rng = np.random.default_rng(0)
    drawn = [mix.draw(rng) for _ in range(4000)]
    shares = {kinds: drawn.count(kinds) / 4000 for kinds in set(drawn)}
    assert set(shares) == {(), ("point",), ("point", "box")}
    assert shares["point",] == pytest.approx(0.5, abs=0.03)
    assert mix.uses_masks
    assert not PromptMix({"none": 1, "point": 0}).uses_masks


def test_recipes_and_prompts_know_the_same_kinds():
    assert (NONE, *KINDS) == PROMPT_KINDS


def test_mixtures_give_one_prompt_of_each_kind():
    prompts = derive_prompts(ring(), ("point", "box", "mask"), np.random.default_rng(0))
    assert [type(prompt).__name__ for prompt in prompts] == ["Point", "Box", "Mask"]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"pint": 1}, "Did you mean 'point'"),
        ({"point+boxx": 1}, "Did you mean 'box'"),
        ({"none+box": 1}, "'none.box', but none stands alone"),
        ({"point": -1}, "below zero"),
        ({"point": float("nan")}, "below zero"),
        ({"none": 0}, "at least one"),
        ({}, "at least one"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(weights, words):
    with pytest.raises(RecipeError, match=words):
        PromptMix(weights)
