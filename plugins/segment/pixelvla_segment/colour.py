"""The detector ``colour``: from words for colours and shapes to boxes, with OpenCV, without any weights.

A text's colour word says which pixels may belong to the thing (of things that have a colour of their own, such as
bananas, the noun says it). What hangs together is a candidate, and its outline is compared with the noun's shape;
drawers, doors and handles are looked for within it. Words for places choose among candidates.
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
from pixelvla_segment.panels import parts
from pixelvla_segment.pieces import Piece, Range, pieces, pixels_of

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


PARTS = {
    **dict.fromkeys(("drawer", "drawers"), "drawer"),
    **dict.fromkeys(("door", "doors"), "door"),
    **dict.fromkeys(("handle", "handles", "knob"), "handle"),
}
"""Noun -> the part of furniture that it names."""
PLACES = {
    **dict.fromkeys(("left", "leftmost"), ("x", 0.0)),
    **dict.fromkeys(("right", "rightmost"), ("x", 1.0)),
    **dict.fromkeys(("top", "upper", "topmost"), ("y", 0.0)),
    **dict.fromkeys(("middle", "center", "centre"), ("y", 0.5)),
    **dict.fromkeys(("bottom", "lower", "lowest"), ("y", 1.0)),
}
"""Word -> axis, and place along it among the candidates, 0 first and 1 last."""
RIVAL = 0.4
"""Share of the best score from which a candidate counts when places are told apart."""


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
        mask = pixels_of(image, COLOURS[colour])
        part = next((PARTS[word] for word in reversed(words) if word in PARTS), None)
        found = self._things(mask, words) if part is None else self._parts(image, mask, part)
        return sorted(_by_place(found, words), key=lambda detection: -detection.score)

    def _things(self, mask: np.ndarray, words: Sequence[str]) -> list[Detection]:
        shape = next((SHAPES[word] for word in reversed(words) if word in SHAPES), None)
        return [self._candidate(piece, shape, mask.shape) for piece in pieces(mask, self.config.smallest)]

    def _parts(self, image: np.ndarray, mask: np.ndarray, noun: str) -> list[Detection]:
        height, width = mask.shape
        return [
            Detection(
                Box(panel.left / width, panel.top / height, panel.right / width, panel.bottom / height), panel.score
            )
            for panel in parts(image, mask, pieces(mask, self.config.smallest), noun)
        ]

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


def _by_place(found: Sequence[Detection], words: Sequence[str]) -> list[Detection]:
    """Lower the scores of candidates that are not where a word says, by up to half."""
    for axis, wanted in [PLACES[word] for word in words if word in PLACES]:
        best = max((detection.score for detection in found), default=0.0)
        rivals = sorted(
            (detection for detection in found if detection.score >= RIVAL * best),
            key=lambda detection: getattr(detection.box, axis + "0") + getattr(detection.box, axis + "1"),
        )
        last = max(len(rivals) - 1, 1)
        off = {id(rival): abs(place / last - wanted) if rivals[1:] else 0.0 for place, rival in enumerate(rivals)}
        found = [Detection(each.box, each.score * (1 - off.get(id(each), 1.0) / 2)) for each in found]
    return list(found)


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
