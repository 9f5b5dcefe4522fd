"""Pixels of one colour, and what hangs together among them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Range:
    """Colours in OpenCV's HSV for 8-bit images: hues of [0, 180), perhaps through 0, and bounds of the others."""

    hue: tuple[int, int] = (0, 180)
    saturation: tuple[int, int] = (0, 255)
    value: tuple[int, int] = (0, 255)


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
