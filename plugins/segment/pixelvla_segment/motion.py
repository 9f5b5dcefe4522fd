"""The gripper finder ``motion``: what moved within an episode and has the colours that move in all of them.

The median of earlier frames shows the scene without the arm. What differs from it where the gripper closes is the arm,
its shadow, or what it moves; only the arm has the same colours in every episode, so they are learnt from all clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pixelvla_core.annotate.models import Clip, Models, Segment
from pixelvla_segment.config import MotionConfig

BINS = 16
"""Of each colour channel."""


class Motion:
    """Finds grippers without knowing what they look like."""

    def __init__(self, config: MotionConfig | None = None, models: Models | None = None) -> None:
        self.config = config or MotionConfig()

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        moved = [self._moved(clip) for clip in clips]
        common = _common([clip.image for clip in clips], moved)
        return [self._cut(clip.image, mask, common) for clip, mask in zip(clips, moved, strict=True)]

    def _moved(self, clip: Clip) -> np.ndarray:
        """Where a clip's image differs from what stood there before, bool[H, W]; nowhere without context."""
        if not clip.context:
            return np.zeros(clip.image.shape[:2], bool)
        scene = np.median(np.stack(clip.context), axis=0)
        return np.abs(clip.image - scene).max(-1) > self.config.change

    def _cut(self, image: np.ndarray, moved: np.ndarray, common: np.ndarray) -> Segment | None:
        """The largest piece that moved and has common colours; its score is how much of what moved it is."""
        likely = common[_codes(image)] >= self.config.common
        mask = cv2.morphologyEx((moved & likely).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count < 2:
            return None
        label = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        piece = labels == label
        return Segment(piece, float(np.count_nonzero(piece) / max(np.count_nonzero(mask), 1)))


def _common(images: Sequence[np.ndarray], moved: Sequence[np.ndarray]) -> np.ndarray:
    """In which share of the clips each colour moved, float[BINS**3]; neighbouring colours count as well."""
    seen = np.zeros(BINS**3)
    for image, mask in zip(images, moved, strict=True):
        cube = np.zeros((BINS, BINS, BINS), np.uint8)
        cube.reshape(-1)[np.unique(_codes(image)[mask])] = 1
        seen += _grown(cube).reshape(-1)
    return seen / max(len(images), 1)


def _grown(cube: np.ndarray) -> np.ndarray:
    """Set the neighbours of every set cell, along each axis."""
    padded = np.pad(cube, 1)
    centre = slice(1, -1)
    shifted = [cube]
    for axis in range(3):
        for start in (0, 2):
            place = [centre] * 3
            place[axis] = slice(start, start + cube.shape[axis])
            shifted.append(padded[tuple(place)])
    return np.maximum.reduce(shifted)


def _codes(image: np.ndarray) -> np.ndarray:
    """Number of each pixel's colour, int64[H, W]."""
    return image.astype(np.int64) // (256 // BINS) @ np.array([BINS * BINS, BINS, 1])
