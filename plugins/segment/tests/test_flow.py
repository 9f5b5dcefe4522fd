"""The tracker by optical flow, on drawn things whose motion is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelvla_segment.config import FlowConfig
from pixelvla_segment.flow import Flow

from pixelvla_core.api import UserError
from pixelvla_core.evaluate.statistics import overlap
from pixelvla_core.plugins import PluginManager

SIZE = 160


def scene(x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A brick of two colours at (x, y) on a table with grain, and its mask."""
    grain = np.random.default_rng(0).normal(0, 6, (SIZE, SIZE, 1))
    image = np.clip(np.array([205, 195, 178]) + grain, 0, 255).astype(np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for colour, (left, right) in {(200, 40, 40): (-16, 4), (40, 60, 190): (4, 16)}.items():
        corners = np.array([[left, -9], [right, -9], [right, 9], [left, 9]]) * scale
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        polygon = [(corners @ rotation.T + [x, y]).round().astype(int)]
        cv2.fillPoly(image, polygon, colour)
        cv2.fillPoly(mask, polygon, 1)
    return image, mask > 0


def test_it_is_a_tracker_that_sees_every_image() -> None:
    component = PluginManager.load().registry.get("tracker", "flow")
    assert component.build(component.load_config()()).every_step


@pytest.mark.parametrize(("x", "y", "scale", "turn"), [(5, 2, 0.0, 0.0), (0, 0, 0.04, 0.0), (2, 1, 0.0, 0.06)])
def test_it_goes_with_shifts_scales_and_turns(x: float, y: float, scale: float, turn: float) -> None:
    flow = Flow()
    flow.start(*scene(50, 60))
    for step in range(1, 9):
        image, mask = scene(50 + x * step, 60 + y * step, 1 + scale * step, turn * step)
        assert overlap(flow.step(image), mask) > 0.85


def test_a_hidden_thing_has_no_mask_until_it_is_seen_again() -> None:
    flow = Flow()
    image, mask = scene(60, 60)
    flow.start(image, mask)
    covered = image.copy()
    covered[30:100, 20:110] = np.random.default_rng(1).integers(0, 255, (70, 90, 3))
    assert not flow.step(covered).any()
    assert overlap(flow.step(scene(63, 60)[0]), scene(63, 60)[1]) > 0.85


def test_nothing_stays_nothing() -> None:
    flow = Flow()
    image, mask = scene(60, 60)
    flow.start(image, np.zeros_like(mask))
    assert not flow.step(image).any()


def test_out_of_the_image_there_is_no_mask() -> None:
    flow = Flow()
    flow.start(*scene(100, 80))
    for step in range(1, 16):
        image, mask = scene(100 + 6 * step, 80)
        found = flow.step(image)
    assert not mask.any()
    assert np.count_nonzero(found) < 60


def test_sizes_must_agree() -> None:
    with pytest.raises(UserError, match="equal heights"):
        Flow().start(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), bool))


@pytest.mark.parametrize("wrong", [{"points": 4}, {"window": 2}, {"error": 0.0}, {"visible": 1.5}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FlowConfig(**wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_any_images_give_masks_of_their_size_twice(height: int, width: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < share
    found = []
    for _ in range(2):
        flow = Flow()
        flow.start(images[0], mask)
        found.append([flow.step(image) for image in images[1:]])
    for one, other in zip(*found, strict=True):
        assert one.shape == (height, width)
        assert one.dtype == bool
        np.testing.assert_array_equal(one, other)
