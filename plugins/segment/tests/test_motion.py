"""The gripper finder by motion."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pixelvla_segment.motion import Motion

from pixelvla_core.annotate.models import Clip
from pixelvla_core.annotate.regions import intersection_over_union

HAND = (25, 25, 30)


def frame(
    floor: tuple[int, int, int], hand: tuple[int, int], thing: tuple[int, int], colour: tuple[int, int, int]
) -> np.ndarray:
    image = np.full((80, 100, 3), floor, np.uint8)
    image[thing[1] : thing[1] + 10, thing[0] : thing[0] + 10] = colour
    shadow = image[hand[1] + 16 : hand[1] + 24, hand[0] : hand[0] + 16]
    shadow[:] = (shadow * 0.6).astype(np.uint8)
    image[hand[1] : hand[1] + 14, hand[0] : hand[0] + 16] = HAND
    return image


def clips(count: int) -> tuple[list[Clip], list[np.ndarray]]:
    """Hands that come to a thing; in every second episode the thing has been pushed a little."""
    made, truth = [], []
    for episode in range(count):
        rng = np.random.default_rng(episode)
        floor = tuple(rng.integers(120, 250, 3))
        colour = tuple(np.roll((230, 40, 40), episode % 3))
        x, y = int(rng.integers(30, 70)), int(rng.integers(25, 45))
        path = [(5, 2), (15, 6), (40, 4), (60, 8)]
        context = tuple(frame(floor, place, (x, y + 12), colour) for place in path)
        made.append(Clip(episode, frame(floor, (x - 3, y), (x + 3 * (episode % 2), y + 12), colour), context))
        mask = np.zeros((80, 100), bool)
        mask[y : y + 14, x - 3 : x + 13] = True
        truth.append(mask)
    return made, truth


def test_the_hand_is_found_and_neither_its_shadow_nor_what_it_pushes() -> None:
    made, truth = clips(12)
    found = Motion().find(made)
    overlaps = [intersection_over_union(each.mask, mask) for each, mask in zip(found, truth, strict=True) if each]
    assert len(overlaps) == 12
    assert np.mean(overlaps) > 0.8
    assert all(0 < each.score <= 1 for each in found if each)


def test_without_earlier_frames_nothing_can_be_said_to_move() -> None:
    made, _ = clips(3)
    assert Motion().find([Clip(clip.episode, clip.image) for clip in made]) == [None] * 3
    assert Motion().find([]) == []


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_any_images_are_taken(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, before = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    (found,) = Motion().find([Clip(0, image, (before,))])
    assert found is None or (found.mask.shape == (height, width) and found.mask.any())
