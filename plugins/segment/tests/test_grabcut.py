"""The segmenter on drawn scenes, where the exact mask is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelvla_segment.config import GrabCutConfig
from pixelvla_segment.grabcut import GrabCut, separation
from pixelvla_segment.marks import Marks

from pixelvla_core.annotate.models import BatchSegmenter
from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.api import Box, Line, Mask, Point, UserError
from pixelvla_core.plugins import PluginManager

SIZE = 224
RED, BLUE = (220, 30, 30), (30, 40, 210)


def table(seed: int = 0) -> np.ndarray:
    """A table with a little noise, uint8[SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    return np.clip(np.array([205, 195, 178]) + rng.normal(0, 4, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def put(image: np.ndarray, colour: tuple[int, int, int], centre: tuple[int, int], radius: int = 13) -> np.ndarray:
    """Draw a thing with a lit top and a shaded side into ``image``, x and y of its centre given; return its mask."""
    mask = np.zeros(image.shape[:2], np.uint8)
    top = np.zeros_like(mask)
    x, y = centre
    cv2.circle(top, centre, radius, 1, -1)
    mask |= top
    cv2.rectangle(mask, (x - radius, y), (x + radius, y + radius), 1, -1)
    image[mask > 0] = np.array(colour) * 0.55
    image[top > 0] = colour
    return mask > 0


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


@pytest.fixture
def scene():
    """A red thing among a blue one and another red one, with their masks."""
    image = table()
    return image, put(image, RED, (80, 90)), put(image, BLUE, (130, 90)), put(image, RED, (150, 160))


@pytest.mark.parametrize("kind", ["point", "line", "box", "mask", "point+box", "line+mask"])
def test_every_kind_of_prompt_finds_the_thing_and_only_it(scene, kind):
    image, target, _, twin = scene
    for seed in range(8):
        rng = np.random.default_rng(seed)
        found = GrabCut().segment(image, [derive_prompt(target, name, rng) for name in kind.split("+")])
        assert overlap(found, target) > 0.85
        assert not (found & twin).any()


def test_two_points_mark_two_things(scene):
    image, target, blue, _ = scene
    found = GrabCut().segment(image, [Point(80 / SIZE, 90 / SIZE), Point(130 / SIZE, 90 / SIZE)])
    assert overlap(found, target | blue) > 0.85


def test_a_negative_point_chooses_between_two_things_in_a_box(scene):
    image, target, blue, _ = scene
    both = Box(60 / SIZE, 70 / SIZE, 150 / SIZE, 110 / SIZE)
    for wanted, other in (((80, 90), (130, 90)), ((130, 90), (80, 90))):
        marks = [Point(wanted[0] / SIZE, wanted[1] / SIZE), Point(other[0] / SIZE, other[1] / SIZE, positive=False)]
        found = GrabCut().segment(image, [both, *marks])
        assert overlap(found, target if wanted == (80, 90) else blue) > 0.8
    found = GrabCut().segment(image, [both, *(Point(x / SIZE, 90 / SIZE, positive=False) for x in range(70, 91, 4))])
    assert overlap(found, blue) > 0.8


def test_a_mask_is_taken_as_it_is_whatever_its_resolution(scene):
    image, target, *_ = scene
    assert (GrabCut().segment(image, [Mask(target)]) == target).all()
    half = GrabCut().segment(image, [Mask(target[::2, ::2].copy())])
    assert half.shape == target.shape
    assert overlap(half, target) > 0.85
    tiny = np.zeros((SIZE * 8, SIZE * 8), bool)
    tiny[800, 800] = True
    assert GrabCut().segment(image, [Mask(tiny)]).sum() == 1


def test_the_same_prompt_gives_the_same_mask(scene):
    image, target, *_ = scene
    point = derive_prompt(target, "point", np.random.default_rng(1))
    assert (GrabCut().segment(image, [point]) == GrabCut().segment(image, [point])).all()


def test_nothing_marked_is_refused(scene):
    with pytest.raises(UserError, match="mark nothing"):
        GrabCut().segment(scene[0], [Point(0.5, 0.5, positive=False)])
    with pytest.raises(UserError, match=r"float64\[224, 224, 3\]"):
        GrabCut().segment(scene[0].astype(float), [Point(0.5, 0.5)])


coordinates = st.floats(0, 1)
points = st.builds(Point, coordinates, coordinates, st.booleans())
lines = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=4, unique=True).map(lambda v: Line(tuple(v)))
boxes = (
    st.tuples(coordinates, coordinates, coordinates, coordinates)
    .filter(lambda b: b[0] != b[2] and b[1] != b[3])
    .map(lambda b: Box(min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(points, lines, boxes), min_size=1, max_size=4), st.integers(0, 3))
def test_any_mixture_anywhere_gives_a_mask_that_keeps_its_word(prompts, seed):
    image = table(seed)[::4, ::3]
    put(image, RED, (30, 30), 8)
    marks = Marks.of(prompts, image.shape[:2])
    if not ((marks.inside | marks.boxes) & ~marks.outside).any():
        with pytest.raises(UserError):
            GrabCut().segment(image, prompts)
        return
    found = GrabCut().segment(image, prompts)
    assert found.shape == image.shape[:2]
    assert found.dtype == np.bool_
    assert found.any()
    wanted = marks.inside & ~marks.outside
    assert (found & wanted).sum() == wanted.sum()


@settings(deadline=None)
@given(st.one_of(points, lines, boxes))
def test_every_prompt_marks_at_least_one_pixel(prompt):
    marks = Marks.of([prompt], (17, 29))
    assert (marks.inside | marks.outside | marks.boxes).any()


def test_options_are_checked():
    with pytest.raises(ValueError, match="margin is 0"):
        GrabCutConfig(margin=0)
    with pytest.raises(ValueError, match="iterations is -1"):
        GrabCutConfig(iterations=-1)


def test_the_plugin_offers_its_parts():
    registry = PluginManager.load().registry
    assert isinstance(registry.get("segmenter", "grabcut").build(GrabCutConfig()), GrabCut)
    assert registry.get("tracker", "follow").load_config()().reach == 0.1


def test_many_objects_on_many_images_are_what_each_is_alone(scene):
    image, target, blue, twin = scene
    objects = [[derive_prompt(mask, "box", np.random.default_rng(0))] for mask in (target, blue, twin)]
    segmenter = GrabCut()
    assert isinstance(segmenter, BatchSegmenter)
    first, none, second = segmenter.segment_batch([image, table(), image], [objects[:1], [], objects[1:]])
    assert none == []
    for prompts, segment in zip(objects, [*first, *second], strict=True):
        np.testing.assert_array_equal(segment.mask, segmenter.segment(image, prompts))
        assert segment.score > 0.95


def test_the_score_falls_where_a_mask_ends_beside_the_thing(scene):
    image, target, _, _ = scene
    cut, spilt = target.copy(), target.copy()
    cut[:, 80:] = False
    spilt |= np.roll(target, 20, axis=1)
    whole = separation(image, target)
    assert whole > 0.95
    assert separation(image, cut) < whole - 0.1
    assert separation(image, spilt) < whole - 0.1
    assert separation(table(), target) < 0.1
    assert separation(image, np.ones_like(target)) == separation(image, np.zeros_like(target)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from(["point", "line", "box"]))
def test_scores_are_shares_and_prompts_derived_from_any_mask_lie_on_it(height, width, seed, kind):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    marked = np.zeros((height, width), bool)
    marked[rng.integers(height) :, rng.integers(width) :] = True
    ((segment,),) = GrabCut().segment_batch([image], [[[derive_prompt(marked, kind, rng)]]])
    assert 0 <= segment.score <= 1
    for _ in range(4):
        point, line = (derive_prompt(segment.mask, each, rng) for each in ("point", "line"))
        on = Marks.of([point, line], segment.mask.shape).inside
        assert (on <= segment.mask).all()
        box = derive_prompt(segment.mask, "box", rng)
        assert (segment.mask <= Marks.of([box], segment.mask.shape).boxes).all()
