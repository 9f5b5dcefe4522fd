"""The tracker ``flow``: carries the mask along with the optical flow of the object's pixels.

Points on the object and right around it are followed by Lucas and Kanade's method in pyramids, in colour, forth and
back: what does not come back to where it began is hidden or slipped (Kalal et al. 2010, forward-backward error). The
motion that most of the others agree on, a shift with a turn and a scale, moves the first mask on; its shape stays.
"""

from __future__ import annotations

import cv2
import numpy as np

from pixelvla_segment.config import FlowConfig
from pixelvla_segment.sizes import check_fits

RIM = 2
"""Pixels around the mask that are followed as well: an object of one colour shows its motion at its edge."""
AGREE = 1.5
"""Pixels by which a point's motion may differ from the common one."""
FEWEST = 4
"""Points without which no motion is known."""
SCALES = (0.8, 1.25)
"""Factor by which an object may shrink or grow between two images; beyond, points slipped."""


class Flow:
    """Follows one object."""

    every_step = True

    def __init__(self, config: FlowConfig | None = None) -> None:
        self.config = config or FlowConfig()

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Begin anew with the first image, uint8[H, W, 3], and the mask on it, bool[H, W].

        Raises:
            UserError: image and mask differ in size.
        """
        check_fits(image, mask)
        self._first = self._mask = mask
        self._moved = np.eye(3)
        self._image = np.ascontiguousarray(image)

    def step(self, image: np.ndarray) -> np.ndarray:
        """Return the mask on the next image; empty if less of the object is seen than the option `visible`."""
        if not self._mask.any():
            return self._mask
        image = np.ascontiguousarray(image)
        before = self._points()
        after, found = self._followed(image, before)
        if found.sum() < max(FEWEST, self.config.visible * len(before)):
            return np.zeros_like(self._mask)  # and look for it next time where it was seen last
        self._moved = _motion(before[found], after[found]) @ self._moved
        self._image = image
        size = self._first.shape[::-1]
        moved = cv2.warpAffine(self._first.astype(np.uint8), self._moved[:2], size, flags=cv2.INTER_NEAREST)
        self._mask = moved > 0
        return self._mask

    def _points(self) -> np.ndarray:
        """Places to follow, float32[P, 2], x and y, evenly spread over the mask and its rim."""
        area = cv2.dilate(self._mask.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
        rows, columns = np.nonzero(area)
        stride = max(1, len(rows) // self.config.points)
        return np.stack([columns, rows], 1)[::stride].astype(np.float32)

    def _followed(self, image: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of the last image are on this one, float32[P, 2], and which of them are known, bool[P]."""
        window = (self.config.window, self.config.window)
        after, there, _ = cv2.calcOpticalFlowPyrLK(self._image, image, before, before.copy(), winSize=window)
        back, here, _ = cv2.calcOpticalFlowPyrLK(image, self._image, after, after.copy(), winSize=window)
        error = np.linalg.norm(back - before, axis=1)
        return after, (there[:, 0] > 0) & (here[:, 0] > 0) & (error < self.config.error)


def _motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The motion that most points agree on, float[3, 3]; without one that makes sense, their median shift."""
    cv2.setRNGSeed(0)  # points are drawn at random
    found, _ = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=AGREE)
    motion = np.eye(3)
    if found is not None and SCALES[0] <= np.hypot(found[0, 0], found[1, 0]) <= SCALES[1]:
        motion[:2] = found
    else:
        motion[:2, 2] = np.median(after - before, axis=0)
    return motion
