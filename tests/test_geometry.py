"""Prompts and masks follow every resize, crop, pad and mirror of the image."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pixelvla_core.geometry import Affine, center, clip_polyline, coverage, warp
from pixelvla_core.prompts import Box, Line, Point

quick = settings(deadline=None, max_examples=80)
unit = st.floats(0, 1)
sizes = st.integers(1, 40)


@st.composite
def crops(draw):
    x0, y0 = draw(st.floats(0, 0.8)), draw(st.floats(0, 0.8))
    return Affine.crop(x0, y0, x0 + draw(st.floats(0.1, 1 - x0)), y0 + draw(st.floats(0.1, 1 - y0)))


@st.composite
def affines(draw):
    """Chains of what collates do: crops, pads, mirrors."""
    steps = [crops(), st.builds(Affine.letterbox, sizes, sizes), st.just(Affine.rotate180())]
    found = Affine()
    for step in draw(st.lists(st.sampled_from(steps), max_size=3)):
        found = found.then(draw(step))
    return found


@st.composite
def masks(draw):
    height, width = draw(sizes), draw(sizes)
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits, bool).reshape(height, width)


@quick
@given(affines(), affines(), unit, unit)
def test_then_applies_one_after_the_other_and_inverse_undoes(first, second, x, y):
    assert first.then(second)(x, y) == pytest.approx(second(*first(x, y)), rel=1e-9, abs=1e-9)
    assert first.inverse()(*first(x, y)) == pytest.approx((x, y), rel=1e-6, abs=1e-6)


def test_crop_letterbox_and_rotation_by_hand():
    assert Affine.crop(0.25, 0.5, 0.75, 1.0)(0.5, 0.75) == (0.5, 0.5)
    assert Affine.letterbox(200, 100)(0.5, 0.0) == (0.5, 0.25)
    assert Affine.letterbox(100, 200)(1.0, 0.5) == (0.75, 0.5)
    assert Affine.rotate180()(0.25, 0.75) == (0.75, 0.25)


def overlap(cell: int, cells: int, start: float, end: float) -> float:
    low, high = sorted((start, end))
    return max(0.0, min((cell + 1) / cells, high) - max(cell / cells, low)) * cells


@quick
@given(masks(), affines(), st.integers(1, 9), st.integers(1, 9))
def test_coverage_is_the_exact_area_of_every_pixel_in_every_cell(mask, affine, rows, columns):
    height, width = mask.shape
    expected = np.zeros((rows, columns))
    for i, j in zip(*np.nonzero(mask), strict=True):
        (xa, ya), (xb, yb) = affine(j / width, i / height), affine((j + 1) / width, (i + 1) / height)
        down = [overlap(r, rows, ya, yb) for r in range(rows)]
        across = [overlap(c, columns, xa, xb) for c in range(columns)]
        expected += np.outer(down, across)
    assert coverage(mask, affine, rows, columns) == pytest.approx(expected, abs=1e-6)


@quick
@given(st.integers(1, 3000), st.integers(1, 3000), st.data(), st.sampled_from([8, 16, 64]))
def test_a_single_pixel_never_vanishes_and_stays_in_its_place(height, width, data, raster):
    i, j = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), bool)
    mask[i, j] = True
    affine = Affine.letterbox(width, height)
    covered = coverage(mask, affine, raster, raster)
    assert covered.sum() == pytest.approx(raster**2 / max(height, width) ** 2, rel=1e-3)
    centers = (np.arange(raster) + 0.5) / raster
    x, y = affine((j + 0.5) / width, (i + 0.5) / height)
    assert covered.sum(0) @ centers / covered.sum() == pytest.approx(x, abs=0.51 / raster)
    assert covered.sum(1) @ centers / covered.sum() == pytest.approx(y, abs=0.51 / raster)


@quick
@given(masks(), affines())
def test_the_center_is_that_of_what_is_shown(mask, affine):
    fine = coverage(mask, affine, 400, 400).astype(float)
    assume(fine.sum() > 100)
    places = (np.arange(400) + 0.5) / 400
    expected = fine.sum(0) @ places / fine.sum(), fine.sum(1) @ places / fine.sum()
    assert center(mask, affine) == pytest.approx(expected, abs=2e-3)


def test_identity_on_whole_cells_is_the_mean_of_blocks():
    mask = np.random.default_rng(0).random((48, 80)) < 0.3
    expected = mask.reshape(6, 8, 10, 8).mean((1, 3))
    assert coverage(mask, Affine(), 6, 10) == pytest.approx(expected, abs=1e-6)


@quick
@given(affines(), unit, unit, st.booleans())
def test_points_move_with_the_image_and_are_dropped_outside(affine, x, y, positive):
    tx, ty = affine(x, y)
    assume(all(min(abs(v), abs(v - 1)) > 1e-6 for v in (tx, ty)))
    inside = 0 < tx < 1 and 0 < ty < 1
    assert warp(Point(x, y, positive), affine) == ([Point(tx, ty, positive)] if inside else [])


@quick
@given(sizes, sizes, st.sampled_from([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]))
def test_padding_never_loses_a_point_on_the_edge(width, height, corner):
    assert len(warp(Point(*corner), Affine.letterbox(width, height))) == 1
    assert len(warp(Point(*corner), Affine.letterbox(width, height).then(Affine.rotate180()))) == 1


@quick
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 10), st.integers(1, 10), affines())
def test_a_box_covers_what_the_mask_of_its_region_covers(x, y, w, h, affine):
    x1, y1 = min(x + w, 10), min(y + h, 10)
    mask = np.zeros((10, 10), bool)
    mask[y:y1, x:x1] = True
    area = coverage(mask, affine, 8, 8).sum() / 64
    found = warp(Box(x / 10, y / 10, x1 / 10, y1 / 10), affine)
    assert sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in found) == pytest.approx(area, abs=1e-5)


def length(vertices) -> float:
    return sum(math.dist(a, b) for a, b in pairwise(vertices))


@quick
@given(st.lists(st.tuples(unit, unit), min_size=2, max_size=6), affines())
def test_a_line_keeps_exactly_what_lies_inside(vertices, affine):
    assume(len(set(vertices)) > 1)
    placed = [affine(x, y) for x, y in vertices]
    pieces = [line.vertices for line in warp(Line(tuple(vertices)), affine)]
    assert all(0 <= v <= 1 for piece in pieces for vertex in piece for v in vertex)
    steps = (np.arange(2000) + 0.5) / 2000
    inside = 0.0
    for a, b in pairwise(placed):
        along = np.outer(1 - steps, a) + np.outer(steps, b)
        # What is outside by a rounding error alone counts as inside, as in `warp`.
        inside += ((along >= -1e-9) & (along <= 1 + 1e-9)).all(1).mean() * math.dist(a, b)
    assert sum(map(length, pieces)) == pytest.approx(inside, abs=2e-3 * (1 + length(placed)))


def test_a_line_that_leaves_and_comes_back_becomes_two():
    line = [(0.5, 0.5), (1.5, 0.5), (1.5, 0.8), (0.5, 0.8)]
    assert clip_polyline(line) == [((0.5, 0.5), (1.0, 0.5)), ((1.0, 0.8), (0.5, 0.8))]


def test_a_line_inside_is_left_as_it_is_and_one_that_only_touches_is_dropped():
    line = ((0.1, 0.1), (0.5, 0.9), (0.9, 0.1))
    assert clip_polyline(line) == [line]
    assert clip_polyline([(-0.5, 0.5), (0.5, -0.5)]) == []
    assert clip_polyline([(-1.0, -1.0), (0.0, 0.0), (0.5, 0.5)]) == [((0.0, 0.0), (0.5, 0.5))]
