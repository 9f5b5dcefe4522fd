"""From a few marked pixels to the region of like colour around them.

Many thresholds are tried; the region that changes least between them is the object, for its edge is where colours jump
(the idea of maximally stable extremal regions, Matas et al. 2002, with one region that must hold the marks).
"""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLDS = tuple(range(6, 60, 3))
"""Distances from the marked colours, in units of an 8-bit channel."""
SHADES = (0.2, 2.0)
"""How much darker or lighter than marked a part of the same thing may be."""
STILL = 0.1
"""Relative growth of a region that counts as none."""
MOST_COLOURS = 6


def grow(image: np.ndarray, marks: np.ndarray, lightness: float, largest: float) -> np.ndarray:
    """Return the region around marked pixels, bool[H, W].

    Args:
        image: uint8[H, W, 3], RGB.
        marks: bool[H, W], not empty.
        lightness: Price of being lighter or darker than marked.
        largest: Greatest share of the image that a region may cover.
    """
    distance = colour_distance(image, marks, lightness)
    regions = []
    for threshold in THRESHOLDS:
        region = touching((distance <= threshold) | marks, marks)
        if region.mean() > largest:
            break
        regions.append(region)
    if not regions:
        return marks
    areas = np.array([np.count_nonzero(region) for region in regions], float)
    return regions[_most_stable(areas)]


def colour_distance(image: np.ndarray, marks: np.ndarray, lightness: float) -> np.ndarray:
    """Return each pixel's distance to the nearest of the marked colours, float32[H, W].

    A colour c stands for its whole ray: light and shade give k c, with k free but for a small price, so that the
    distance is min over k of |x - k c|^2 + (lightness |c| (k - 1))^2, which has a closed form.
    """
    pixels = cv2.GaussianBlur(image, (3, 3), 0).astype(np.float32)
    colours = np.unique(np.round(pixels[marks] / 8) * 8, axis=0)
    if len(colours) > MOST_COLOURS:
        colours = colours[np.linspace(0, len(colours) - 1, MOST_COLOURS).astype(int)]
    return np.min([_to_ray(pixels, colour, lightness) for colour in colours], axis=0)


def _to_ray(pixels: np.ndarray, colour: np.ndarray, lightness: float) -> np.ndarray:
    square, price = float(colour @ colour) + 1, lightness**2
    shade = np.clip((pixels @ colour + price * square) / (square * (1 + price)), *SHADES)
    off = pixels - shade[..., None] * colour
    return np.sqrt(np.einsum("hwc,hwc->hw", off, off) + price * square * (shade - 1) ** 2)


def touching(region: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return those connected parts of a region that hold a mark, bool[H, W]."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, bool)
    keep[labels[marks]] = True
    keep[0] = False
    return keep[labels]


def _most_stable(areas: np.ndarray) -> int:
    """Index of the last area that hardly grows over the two steps around it; of the one that grows least if all do.

    The last one, because a thing may have parts: their edges are crossed at lower thresholds than its own.
    """
    if len(areas) < 3:
        return len(areas) - 1
    growth = (areas[2:] - areas[:-2]) / areas[1:-1]
    still = np.flatnonzero(growth < STILL)
    return 1 + int(still[-1] if len(still) else np.argmin(growth))
