"""Trackers that core and its first-party plugins offer, on a thing that moves, is shaded, hidden and seen again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.statistics import overlap
from pixelvla_core.plugins import PluginManager

SIZE = 224
RED, TABLE = np.array([215, 35, 40]), np.array([205, 195, 178])


def picture(x: float, y: float, *, light: float = 1.0, hidden: bool = False, twin: bool = True, seed: int = 0):
    """An image with a red cross at (x, y), and the cross's visible pixels."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    corner = (round(x), round(y))
    cv2.rectangle(mask, (corner[0] - 14, corner[1] - 5), (corner[0] + 14, corner[1] + 5), 1, -1)
    cv2.rectangle(mask, (corner[0] - 5, corner[1] - 14), (corner[0] + 5, corner[1] + 14), 1, -1)
    image = np.tile(TABLE.astype(float), (SIZE, SIZE, 1))
    if twin:
        image[150:180, 40:70] = RED
    image[mask > 0] = RED * light
    if hidden:
        cover = np.s_[max(0, corner[1] - 20) : corner[1] + 20, max(0, corner[0] - 20) : corner[0] + 20]
        image[cover], mask[cover] = (40, 40, 40), 0
    noise = np.random.default_rng(seed).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask > 0


@pytest.fixture
def follow():
    component = PluginManager.load().registry.get("tracker", "follow")
    return component.build(component.load_config()())


@pytest.fixture
def hold():
    component = PluginManager.load().registry.get("tracker", "hold")
    return component.build(component.load_config()())


def test_hold_keeps_the_first_mask(hold):
    image, mask = picture(60, 60)
    hold.start(image, mask)
    assert hold.step(picture(160, 60)[0]) is mask
    assert not hold.every_step


def test_follow_keeps_to_a_moving_thing_and_not_to_its_twin(follow):
    image, mask = picture(60, 60)
    follow.start(image, mask)
    for step in range(1, 12):
        image, mask = picture(60 + 9 * step, 60 + 5 * step, seed=step)
        assert overlap(follow.step(image), mask) > 0.8


def test_follow_bears_shade(follow):
    follow.start(*picture(60, 60))
    for step, light in enumerate((0.9, 0.8, 0.7, 0.6), start=1):
        image, mask = picture(60 + 4 * step, 60, light=light, seed=step)
        assert overlap(follow.step(image), mask) > 0.8


def test_follow_says_that_a_hidden_thing_is_not_seen_and_finds_it_again(follow):
    follow.start(*picture(60, 60, twin=False))
    assert not follow.step(picture(64, 60, hidden=True, twin=False, seed=1)[0]).any()
    assert not follow.step(picture(66, 60, hidden=True, twin=False, seed=2)[0]).any()
    image, mask = picture(90, 64, twin=False, seed=3)
    assert overlap(follow.step(image), mask) > 0.8


def test_follow_leaves_the_image_and_its_edges_without_harm(follow):
    follow.start(*picture(30, 60, twin=False))
    for step in range(1, 12):
        image, mask = picture(30 - 6 * step, 60, twin=False, seed=step)
        found = follow.step(image)
        assert found.shape == mask.shape
    assert not found.any()


@pytest.mark.parametrize("fill", [False, True])
def test_a_mask_with_nothing_to_tell_apart_stays(follow, fill):
    image, _ = picture(60, 60)
    mask = np.full((SIZE, SIZE), fill)
    follow.start(image, mask)
    assert (follow.step(image) == mask).all()


def test_another_size_is_refused(follow):
    with pytest.raises(UserError, match="expected equal heights"):
        follow.start(picture(60, 60)[0], np.ones((8, 8), bool))


def test_follow_does_not_remember_the_episode_before(follow):
    follow.start(*picture(60, 60))
    follow.step(picture(64, 60, hidden=True)[0])
    image, mask = picture(150, 90)
    follow.start(image, mask)
    assert overlap(follow.step(image), mask) > 0.9
