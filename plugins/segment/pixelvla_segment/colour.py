"""The detector ``colour``: from words for colours and shapes to boxes, with OpenCV, without any weights.

A text's colour word says which pixels may belong to the thing (of things that have a colour of their own, such as
bananas, the noun says it). What hangs together is a candidate, and its outline is compared with the noun's shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pixelvla_core.annotate.models import Detection
from pixelvla_core.api import Box
from pixelvla_segment.config import ColourConfig


@dataclass(frozen=True)
class Range:
    """Colours in OpenCV's HSV for 8-bit images: hues of [0, 180), perhaps through 0, and bounds of the others."""

    hue: tuple[int, int] = (0, 180)
    saturation: tuple[int, int] = (0, 255)
    value: tuple[int, int] = (0, 255)


_STRONG = (100, 255)
COLOURS = {
    "red": Range((172, 8), _STRONG, (50, 255)),
    "orange": Range((8, 20), (190, 255), (70, 255)),
    "brown": Range((4, 24), (50, 190), (30, 200)),
    "yellow": Range((20, 35), _STRONG, (70, 255)),
    "green": Range((35, 85), (80, 255), (30, 255)),
    "cyan": Range((80, 100), _STRONG, (50, 255)),
    "teal": Range((80, 100), (80, 255), (30, 200)),
    "blue": Range((98, 130), _STRONG, (40, 255)),
    "purple": Range((128, 160), (80, 255), (30, 255)),
    "pink": Range((150, 176), (40, 255), (120, 255)),
    "black": Range(value=(0, 50)),
    "white": Range(saturation=(0, 40), value=(200, 255)),
    "grey": Range(saturation=(0, 50), value=(60, 190)),
    "silver": Range(saturation=(0, 50), value=(110, 230)),
    "gold": Range((16, 28), (90, 255), (90, 255)),
}
"""Colour word -> the pixels that it may mean, in light and in shade."""
SAME = {"gray": "grey", "violet": "purple", "magenta": "pink", "golden": "gold", "turquoise": "cyan", "wooden": "brown"}
OWN = {
    **dict.fromkeys(("banana", "corn", "lemon"), "yellow"),
    **dict.fromkeys(("apple", "tomato", "strawberry", "ketchup"), "red"),
    **dict.fromkeys(("carrot", "pumpkin", "basketball"), "orange"),
    **dict.fromkeys(("cucumber", "broccoli", "lettuce", "lime"), "green"),
    **dict.fromkeys(("drawer", "cabinet", "drawers", "shelf", "potato"), "brown"),
    **dict.fromkeys(("eggplant", "grapes"), "purple"),
}
"""Things whose colour goes without saying."""


@dataclass(frozen=True)
class Shape:
    """What an outline looks like: length against width, and its share of the smallest rectangle and of its hull."""

    length: float
    rectangle: float
    hull: float = 0.97


_ROUND, _COMPACT, _LONG_ROUND, _LONG = Shape(1.05, 0.78), Shape(1.2, 0.88), Shape(1.9, 0.87), Shape(1.9, 0.92)
SHAPES = {
    **dict.fromkeys(("ball", "sphere", "apple", "tomato", "lemon", "lime", "basketball", "plate"), _ROUND),
    **dict.fromkeys(("cube", "block", "cylinder", "can", "cup", "mug", "bowl", "pot"), _COMPACT),
    **dict.fromkeys(("brick", "box", "book", "bar"), _LONG),
    **dict.fromkeys(
        ("pill", "capsule", "banana", "carrot", "corn", "bottle", "spoon", "eggplant", "cucumber"), _LONG_ROUND
    ),
    **dict.fromkeys(("cross", "plus", "star"), Shape(1.1, 0.6, 0.75)),
}
"""Noun -> the outline that it usually has; others fit any."""
_SPREAD = Shape(0.5, 0.12, 0.1)
"""How far from it an outline may be."""


class Colour:
    """Finds coloured things."""

    def __init__(self, config: ColourConfig | None = None) -> None:
        self.config = config or ColourConfig()

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        return [self._in_image(image, text) for image, text in zip(images, texts, strict=True)]

    def _in_image(self, image: np.ndarray, text: str) -> list[Detection]:
        words = re.findall(r"[a-z]+", text.lower())
        colour = next((SAME.get(word, word) for word in words if SAME.get(word, word) in COLOURS), None)
        colour = colour or next((OWN[word] for word in words if word in OWN), None)
        if colour is None:
            return []
        shape = next((SHAPES[word] for word in reversed(words) if word in SHAPES), None)
        mask = pixels_of(image, COLOURS[colour])
        found = [self._candidate(piece, shape, mask.shape) for piece in pieces(mask, self.config.smallest)]
        return sorted(found, key=lambda detection: -detection.score)

    def _candidate(self, piece: Piece, shape: Shape | None, size: tuple[int, int]) -> Detection:
        height, width = size
        fit = 1.0 if shape is None else _fit(piece.mask, shape)
        box = Box(
            piece.left / width,
            piece.top / height,
            (piece.left + piece.mask.shape[1]) / width,
            (piece.top + piece.mask.shape[0]) / height,
        )
        return Detection(box, piece.solid * (1 - self.config.shape * (1 - fit)))


@dataclass(frozen=True, eq=False)
class Piece:
    """Pixels that hang together: their mask within their box, and which share of their closed outline they fill."""

    top: int
    left: int
    mask: np.ndarray
    solid: float


def pixels_of(image: np.ndarray, colours: Range) -> np.ndarray:
    """Return which pixels of an image, uint8[H, W, 3], are of a colour, bool[H, W]."""
    hue, saturation, value = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), -1, 0)
    low, high = colours.hue
    right = (hue >= low) & (hue < high) if low < high else (hue >= low) | (hue < high)
    for channel, (least, most) in ((saturation, colours.saturation), (value, colours.value)):
        right &= (channel >= least) & (channel <= most)
    return right


def pieces(mask: np.ndarray, smallest: float) -> list[Piece]:
    """Split a mask, bool[H, W], into what hangs together; pieces below a share of the image are left out."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(number) for number in stats[label])
        if area < max(4, smallest * mask.size):
            continue
        inside = labels[top : top + height, left : left + width] == label
        held = np.count_nonzero(inside & mask[top : top + height, left : left + width])
        found.append(Piece(top, left, inside, held / area))
    return found


def _fit(mask: np.ndarray, shape: Shape) -> float:
    """How well an outline fits a shape, in [0, 1]."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    area = float(np.count_nonzero(mask))
    _, (one, two), _ = cv2.minAreaRect(outline)
    # Outlines run through the centres of pixels, so half a pixel misses on every side.
    long, short = max(one, two) + 1, min(one, two) + 1
    hull = cv2.convexHull(outline)
    around = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1
    seen = Shape(long / short, min(1.0, area / (long * short)), min(1.0, area / around))
    off = sum(
        ((getattr(seen, name) - getattr(shape, name)) / getattr(_SPREAD, name)) ** 2
        for name in ("length", "rectangle", "hull")
    )
    return math.exp(-off / 2)
