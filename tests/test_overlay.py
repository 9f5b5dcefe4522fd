"""The overlay draws where the prompts are, on a copy, and adds no tokens."""

from __future__ import annotations

import numpy as np
import pytest
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.model.config import OverlayConfig
from pixelvla_core.model.overlay import BOX, LINE, MASK, NEGATIVE, POSITIVE, OverlayPromptEncoder, draw
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.testing import example_samples

GREY = np.full((120, 160, 3), 100, np.uint8)


def touched(image: np.ndarray) -> np.ndarray:
    return (image != GREY).any(-1)


def has(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == np.array(colour, np.uint8)).all(-1)


@pytest.mark.parametrize(("positive", "colour"), [(True, POSITIVE), (False, NEGATIVE)])
def test_a_point_is_a_disc_of_its_signs_colour_around_its_place(positive, colour):
    image = draw(GREY, [Point(0.25, 0.75, positive)], OverlayConfig(point=0.05))
    assert has(image, colour)[90, 40]
    rows, columns = np.nonzero(touched(image))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(89.5, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(39.5, abs=1)
    assert rows.max() - rows.min() == pytest.approx(2 * 0.05 * 120, abs=2)


def test_a_line_and_a_box_are_drawn_along_their_edges_only():
    line = draw(GREY, [Line(((0.1, 0.5), (0.9, 0.5)))], OverlayConfig())
    assert has(line, LINE)[59:61, 20:140].any(0).all()
    assert not touched(line)[:55].any()
    box = draw(GREY, [Box(0.25, 0.25, 0.75, 0.75)], OverlayConfig())
    edge = has(box, BOX)
    assert edge[30, 40:120].all()
    assert edge[89, 40:120].all()
    assert edge[30:90, 40].all()
    assert edge[30:90, 119].all()
    assert not touched(box)[35:85, 45:115].any()
    assert not touched(box)[:30].any()


def test_a_mask_is_tinted_inside_and_outlined():
    region = np.zeros((120, 160), bool)
    region[40:80, 60:100] = True
    image = draw(GREY, [Mask(region)], OverlayConfig(tint=0.5))
    assert np.array_equal(touched(image), region)
    assert image[60, 80].tolist() == pytest.approx([(100 + c) / 2 for c in MASK], abs=1)
    assert has(image, MASK)[40, 60:100].all()


def test_a_small_mask_of_another_resolution_stays_visible():
    region = np.zeros((960, 1280), bool)
    region[480, 640] = True
    assert touched(draw(GREY, [Mask(region)], OverlayConfig())).sum() == 1


def test_sizes_follow_the_image():
    large = np.full((480, 640, 3), 100, np.uint8)
    small, big = (touched_share(image) for image in (GREY, large))
    assert small == pytest.approx(big, rel=0.25)


def touched_share(image: np.ndarray) -> float:
    prompts = [Point(0.5, 0.5), Line(((0.1, 0.1), (0.9, 0.2))), Box(0.2, 0.3, 0.8, 0.9)]
    return (draw(image, prompts, OverlayConfig(line=0.025)) != image).any(-1).mean()


@pytest.mark.parametrize("prompt", [Point(1, 1), Point(0, 0), Box(0.999, 0.999, 1, 1), Line(((0, 0), (1, 1)))])
def test_prompts_at_the_edge_are_drawn(prompt):
    assert touched(draw(GREY, [prompt], OverlayConfig())).any()


def test_it_paints_a_copy():
    spec = build(ThirdPartyConfig(), weights=None).spec
    encoder = OverlayPromptEncoder(OverlayConfig(), spec)
    sample = example_samples(spec)[0]
    assert encoder.paint(sample) is sample
    before = sample.images["front"].copy()
    prompted = encoder.paint(type(sample)(**{**vars(sample), "prompts": {"front": (Point(0.5, 0.5),)}}))
    assert np.array_equal(sample.images["front"], before)
    assert not np.array_equal(prompted.images["front"], before)
    assert not list(encoder.parameters())
