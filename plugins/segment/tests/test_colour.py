"""The detector by colours and shapes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixelvla_segment.colour import Colour
from pixelvla_segment.config import ColourConfig

FLOOR = (230, 220, 200)


def scene(*things: tuple[str, tuple[int, int, int], tuple[int, int]]) -> np.ndarray:
    image = np.full((120, 160, 3), FLOOR, np.uint8)
    for shape, colour, (x, y) in things:
        if shape == "ball":
            cv2.circle(image, (x, y), 10, colour, -1)
        elif shape == "cube":
            cv2.rectangle(image, (x - 9, y - 9), (x + 9, y + 9), colour, -1)
        elif shape == "brick":
            cv2.rectangle(image, (x - 18, y - 7), (x + 18, y + 7), colour, -1)
        else:
            cv2.rectangle(image, (x - 12, y - 4), (x + 12, y + 4), colour, -1)
            cv2.rectangle(image, (x - 4, y - 12), (x + 4, y + 12), colour, -1)
    return image


def centre(detection: object) -> tuple[float, float]:
    box = detection.box
    return (box.x0 + box.x1) / 2 * 160, (box.y0 + box.y1) / 2 * 120


@pytest.mark.parametrize(
    ("word", "colour"),
    [
        ("red", (220, 20, 20)),
        ("red", (110, 8, 12)),
        ("orange", (255, 140, 0)),
        ("orange", (150, 80, 0)),
        ("yellow", (250, 240, 10)),
        ("green", (10, 160, 20)),
        ("cyan", (30, 220, 240)),
        ("blue", (20, 50, 230)),
        ("purple", (140, 30, 190)),
        ("brown", (150, 100, 60)),
        ("black", (20, 20, 25)),
    ],
)
def test_colours_are_found_in_light_and_in_shade(word: str, colour: tuple[int, int, int]) -> None:
    image = scene(("ball", colour, (40, 60)), ("ball", (128, 128, 128), (120, 60)))
    found = Colour().detect([image], [f"the {word.upper()} thing"])[0]
    assert np.hypot(*np.subtract(centre(found[0]), (40, 60))) < 1.5
    assert len(found) == 1


@pytest.mark.parametrize(
    ("noun", "shape"), [("ball", "ball"), ("brick", "brick"), ("box", "brick"), ("cross", "cross")]
)
def test_of_one_colour_the_shape_decides(noun: str, shape: str) -> None:
    places = {"ball": (25, 60), "cube": (60, 60), "brick": (100, 60), "cross": (140, 60)}
    image = scene(*((name, (220, 20, 20), place) for name, place in places.items()))
    first, *others = Colour().detect([image], [f"red {noun}"])[0]
    assert np.hypot(*np.subtract(centre(first), places[shape])) < 2
    assert len(others) == 3
    assert first.score > others[0].score


def test_a_thing_may_tell_its_colour() -> None:
    image = scene(("ball", (220, 20, 20), (40, 60)), ("brick", (250, 240, 10), (110, 60)))
    (banana,) = Colour().detect([image], ["banana"])[0]
    assert np.hypot(*np.subtract(centre(banana), (110, 60))) < 1.5


def test_every_image_has_its_own_text() -> None:
    image = scene(("ball", (220, 20, 20), (40, 60)), ("ball", (20, 50, 230), (110, 60)))
    red, blue, unknown = Colour().detect([image] * 3, ["red ball", "blue ball", "thing"])
    assert [round(centre(found[0])[0]) for found in (red, blue)] == [40, 110]
    assert unknown == []


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from(["red", "black ball", "grey"])
)
def test_any_image_gives_boxes_within_it_and_scores_in_order(height: int, width: int, seed: int, text: str) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (found,) = Colour(ColourConfig(smallest=0.0)).detect([image], [text])
    scores = [detection.score for detection in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
