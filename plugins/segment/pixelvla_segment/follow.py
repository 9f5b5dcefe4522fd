"""The tracker ``follow``: finds the object's colours and shape again near where they were, in about two milliseconds.

The first mask gives two things that are kept for the whole episode, so that nothing can drift: how much likelier each
colour is on the object than around it, and the shape. Each image is turned into likelihoods; the place where the shape
covers most of them is found with OpenCV's template matching; what is likely there is the mask. So a hidden part is left
out and comes back when it is seen again.
"""

from __future__ import annotations

import cv2
import numpy as np

from pixelvla_segment.config import FollowConfig
from pixelvla_segment.sizes import check_fits

BINS = 16
"""Of each colour channel."""
SHADES = ((1.0, 1.0), (0.85, 0.4), (0.7, 0.4), (0.55, 0.4), (0.45, 0.4))
"""Brightness and weight: the gripper's shadow falls on what it grasps."""
RIM = 3
"""Pixels beyond the shape that count against a place, and that the mask may reach into."""
AROUND = 15
"""Pixels around the object that count as its surroundings."""
SURPRISE = 1e-4
"""Share that every colour has although it was not seen; three times as much in the surroundings."""


class Follow:
    """Follows one object."""

    every_step = True

    def __init__(self, config: FollowConfig | None = None) -> None:
        self.config = config or FollowConfig()

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Learn the object on the first image, uint8[H, W, 3], from its mask, bool[H, W].

        Raises:
            UserError: image and mask differ in size.
        """
        check_fits(image, mask)
        self._mask = mask
        self._lost = 0
        if not mask.any() or mask.all():
            return
        self._likelihood = _colour_likelihood(image, mask, self.config.everywhere)
        rows, columns = np.nonzero(mask)
        self._corner = np.array([rows.min() - RIM, columns.min() - RIM])
        self._shape = np.pad(mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], RIM).astype(
            np.float32
        )
        rim = cv2.dilate(self._shape, _square(RIM)) - self._shape
        self._kernel = self._shape / self._shape.sum() - self.config.rim * rim / max(rim.sum(), 1)

    def step(self, image: np.ndarray) -> np.ndarray:
        """Return the mask on the next image; empty if less of the object is seen than the option `visible`."""
        if not self._mask.any() and not self._lost:
            return self._mask
        if self._mask.all():
            return self._mask
        likely = self._likelihood[tuple(np.moveaxis(image // (256 // BINS), -1, 0))]
        corner = self._find(likely)
        mask = self._cut(likely, corner)
        if np.count_nonzero(mask) < self.config.visible * self._shape.sum():
            self._lost += 1
            mask = np.zeros_like(mask)
        else:
            self._corner, self._lost = corner, 0
        self._mask = mask
        return mask

    def _find(self, likely: np.ndarray) -> np.ndarray:
        """Return the row and column of the shape's corner where it fits best near its last place, int[2]."""
        reach = max(4, round(self.config.reach * max(likely.shape))) * (1 + self._lost)
        reach = min(reach, max(likely.shape))
        pad = reach + max(self._shape.shape)
        padded = cv2.copyMakeBorder(likely, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=-1.0)
        top, left = self._corner - reach + pad
        height, width = np.array(self._shape.shape) + 2 * reach
        scores = cv2.matchTemplate(padded[top : top + height, left : left + width], self._kernel, cv2.TM_CCORR)
        away = np.arange(-reach, reach + 1, dtype=np.float32)
        scores = scores - self.config.inertia * np.hypot(away[:, None], away[None])
        return self._corner + np.array(np.unravel_index(np.argmax(scores), scores.shape)) - reach

    def _cut(self, likely: np.ndarray, corner: np.ndarray) -> np.ndarray:
        """Return the likely pixels that hang together with the shape at a place, bool[H, W]."""
        shape = _placed(self._shape, corner, likely.shape)
        near = cv2.dilate(shape, _square(RIM)) > 0
        found = (cv2.GaussianBlur(likely, (3, 3), 0) > 0) & near
        count, labels = cv2.connectedComponents(found.astype(np.uint8))
        inside = np.bincount(labels[shape > 0], minlength=count)
        keep = inside >= np.maximum(4, 0.1 * np.bincount(labels.ravel(), minlength=count))
        keep[0] = False
        return keep[labels]


def _colour_likelihood(image: np.ndarray, mask: np.ndarray, everywhere: float) -> np.ndarray:
    """Return log(p(colour | object) / p(colour | surroundings)) within +-3, float32[BINS, BINS, BINS]."""
    grown = mask.astype(np.uint8)
    around = (cv2.dilate(grown, _square(AROUND)) - cv2.dilate(grown, _square(1))) > 0
    inside, outside = _histogram(image[mask]), _histogram(image[around])
    outside = (1 - everywhere) * outside + everywhere * _histogram(image[~mask])
    return np.clip(np.log((inside + SURPRISE) / (outside + 3 * SURPRISE)), -3, 3).astype(np.float32)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    """Return the smoothed share of each colour and its shades, float[BINS, BINS, BINS]; zeros without pixels."""
    counts = np.zeros(BINS**3)
    for shade, weight in SHADES:
        codes = (pixels * shade).astype(int) // (256 // BINS) @ np.array([BINS * BINS, BINS, 1])
        counts += weight * np.bincount(codes, minlength=BINS**3)
    cube = counts.reshape(BINS, BINS, BINS) / max(counts.sum(), 1)
    for axis in range(3):
        edge = np.pad(cube, [(1, 1) if axis == other else (0, 0) for other in range(3)], mode="edge")
        before, here, after = (edge.take(range(start, start + BINS), axis) for start in range(3))
        cube = (before + 2 * here + after) / 4
    return cube


def _placed(shape: np.ndarray, corner: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the shape with its corner at a place of an image, cut off at the image's edge, uint8[H, W]."""
    shift = np.array([[1, 0, corner[1]], [0, 1, corner[0]]], np.float32)
    return cv2.warpAffine((shape > 0).astype(np.uint8), shift, size[::-1], flags=cv2.INTER_NEAREST)


def _square(radius: int) -> np.ndarray:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
