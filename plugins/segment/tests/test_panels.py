"""Drawers, doors and handles of drawn furniture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelvla_segment.colour import Colour
from pixelvla_segment.config import ColourConfig

WOOD = np.array((150, 105, 70))
LID, FRONT, GAP, INSIDE, METAL = WOOD * 1.1, WOOD * 0.6, WOOD * 0.3, (245, 245, 245), (120, 125, 135)
LEFT, RIGHT, HIGH = 40, 110, 18


def cabinet(drawers: int, opened: int | None = None, noise: float = 0.0) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Draw a cabinet seen from above, and say between which rows each of its drawers is."""
    image = np.full((140, 160, 3), (225, 215, 200), np.uint8)
    image[10:30, LEFT:RIGHT] = LID
    row, rows = 30, []
    for number in range(drawers):
        image[row : row + 2, LEFT:RIGHT] = GAP
        top = row = row + 2
        if number == opened:
            image[row : row + 12, LEFT:RIGHT] = INSIDE
            row += 12
        image[row : row + HIGH, LEFT:RIGHT] = FRONT
        cv2.rectangle(image, (LEFT + 30, row + 7), (LEFT + 40, row + 10), METAL, -1)
        row += HIGH
        rows.append((top, row))
    grain = np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8), rows


def pixels(detection: object) -> np.ndarray:
    box = detection.box
    return np.array([box.y0 * 140, box.y1 * 140, box.x0 * 160, box.x1 * 160])


@pytest.mark.parametrize(("word", "place"), [("top", 0), ("upper", 0), ("middle", 1), ("bottom", 2), ("lower", 2)])
@pytest.mark.parametrize("noise", [0, 6])
def test_a_word_for_a_place_chooses_among_drawers(word: str, place: int, noise: float) -> None:
    image, rows = cabinet(3, noise=noise)
    found = Colour().detect([image], [f"the {word} drawer of the cabinet"])[0]
    assert len(found) == 3
    assert np.abs(pixels(found[0]) - [*rows[place], LEFT, RIGHT]).max() <= 2
    assert found[0].score > found[1].score


def test_a_cabinet_with_one_drawer_is_not_the_drawer() -> None:
    image, rows = cabinet(1)
    (found,) = Colour().detect([image], ["drawer"])[0]
    assert np.abs(pixels(found) - [*rows[0], LEFT, RIGHT]).max() <= 2


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_the_open_drawer_is_meant_and_its_inside_belongs_to_it(opened: int) -> None:
    image, rows = cabinet(3, opened)
    first, *others = Colour().detect([image], ["drawer"])[0]
    assert np.abs(pixels(first) - [*rows[opened], LEFT, RIGHT]).max() <= 2
    assert all(first.score > other.score for other in others)


def test_a_place_counts_more_than_being_open() -> None:
    image, rows = cabinet(3, opened=2)
    first = Colour().detect([image], ["top drawer"])[0][0]
    assert np.abs(pixels(first)[:2] - rows[0]).max() <= 2


def test_the_handle_of_a_drawer() -> None:
    image, rows = cabinet(2)
    first = Colour().detect([image], ["bottom drawer handle"])[0][0]
    assert np.abs(pixels(first) - [rows[1][0] + 7, rows[1][0] + 11, LEFT + 30, LEFT + 41]).max() <= 1


def test_doors_lie_side_by_side() -> None:
    image, ((top, bottom),) = cabinet(1)
    middle = (LEFT + RIGHT) // 2
    image[top:bottom, LEFT:RIGHT] = FRONT
    image[top:bottom, middle - 1 : middle + 1] = GAP * 0.5
    for word, columns in (("left", (LEFT, middle)), ("right", (middle, RIGHT))):
        first = Colour().detect([image], [f"{word} cabinet door"])[0][0]
        assert np.abs(pixels(first) - [top, bottom, *columns]).max() <= 2


def test_a_gripper_before_a_front_changes_nothing() -> None:
    image, rows = cabinet(3)
    image[:, 60:72] = (20, 20, 24)
    first = Colour().detect([image], ["middle drawer"])[0][0]
    assert np.abs(pixels(first)[:2] - rows[1]).max() <= 2


def test_left_and_right_choose_among_things() -> None:
    image = np.full((60, 90, 3), 220, np.uint8)
    for x in (15, 45, 75):
        cv2.circle(image, (x, 30), 8, (220, 20, 20), -1)
    for word, x in (("left", 15), ("middle", 45), ("right", 75)):
        first = Colour().detect([image], [f"{word} red ball"])[0][0]
        assert abs((first.box.x0 + first.box.x1) / 2 * 90 - x) < 1.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["drawer", "top drawer", "black door", "grey handle", "left brown drawer handle"]),
)
def test_any_image_gives_boxes_and_scores_in_order(height: int, width: int, seed: int, coarse: bool, text: str) -> None:
    image = np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)
    if coarse:  # large areas, so that there are fronts at all
        image = cv2.resize(image[: height // 8 + 1, : width // 8 + 1], (width, height), interpolation=cv2.INTER_NEAREST)
    (found,) = Colour(ColourConfig(smallest=0.0)).detect([image], [text])
    scores = [detection.score for detection in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
