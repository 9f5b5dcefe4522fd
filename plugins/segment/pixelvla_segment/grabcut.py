"""The segmenter ``grabcut``: from any visual prompt to a mask with OpenCV's GrabCut, in milliseconds on a CPU.

Source: C. Rother, V. Kolmogorov, A. Blake, "GrabCut", SIGGRAPH 2004. It needs to know roughly where the object ends: a
box says so; around points and lines a region of like colour is grown first.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pixelvla_core.annotate.models import Segment
from pixelvla_core.api import Prompt, UserError
from pixelvla_segment.config import GrabCutConfig
from pixelvla_segment.grow import grow, touching
from pixelvla_segment.marks import Marks

BINS = 8
"""Of each colour channel, where a mask's colours are compared with those around it."""
AROUND = 6
"""Pixels around a mask that are compared with it; the first one mixes both and does not count."""


class GrabCut:
    """Segments what prompts mark."""

    def __init__(self, config: GrabCutConfig | None = None) -> None:
        self.config = config or GrabCutConfig()

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return the mask of what the prompts mark together, bool[H, W], never empty.

        Args:
            image: uint8[H, W, 3], RGB.
            prompts: At least one that is not a negative point.

        Raises:
            UserError: nothing is marked, or the image is of another type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(f"The image is {image.dtype}{list(image.shape)}; expected uint8[height, width, 3], RGB.")
        marks = Marks.of(prompts, image.shape[:2])
        if not ((marks.inside | marks.boxes) & ~marks.outside).any():
            raise UserError(
                "The prompts mark nothing: give a point, line, box or mask that negative points do not take back; "
                "those only exclude."
            )
        if marks.masked.any() and not marks.boxes.any() and (marks.inside == marks.masked).all():
            return marks.masked & ~marks.outside if (marks.masked & ~marks.outside).any() else marks.masked
        return self._cut(image, marks)

    def segment_batch(
        self, images: Sequence[np.ndarray], objects: Sequence[Sequence[Sequence[Prompt]]]
    ) -> list[list[Segment]]:
        """Return for each image, uint8[H, W, 3], a segment for each of its objects.

        The score says how far the mask's colours differ from those around it: 0 if they are the same, which means that
        the mask ends where the object does not, and 1 if they have none in common.

        Raises:
            UserError: nothing is marked for some object, or an image is of another type.
        """
        return [
            [self._segment(image, prompts) for prompts in these] for image, these in zip(images, objects, strict=True)
        ]

    def _segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> Segment:
        mask = self.segment(image, prompts)
        return Segment(mask, separation(image, mask))

    def _cut(self, image: np.ndarray, marks: Marks) -> np.ndarray:
        likely = marks.boxes if marks.boxes.any() else self._grown(image, marks)
        window = self._window(likely | marks.inside)
        labels = np.full(likely.shape, cv2.GC_BGD if marks.boxes.any() else cv2.GC_PR_BGD, np.uint8)
        labels[likely] = cv2.GC_PR_FGD
        labels[marks.inside] = cv2.GC_FGD
        labels[marks.outside] = cv2.GC_BGD
        cut = np.zeros_like(likely)
        cut[window] = self._refined(image[window], labels[window])
        return _tidy(cut, marks, likely)

    def _grown(self, image: np.ndarray, marks: Marks) -> np.ndarray:
        region = grow(image, marks.inside, self.config.lightness, self.config.largest)
        return region & ~marks.outside

    def _window(self, region: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the region and of enough background around it."""
        spans = []
        for axis, size in ((1, region.shape[0]), (0, region.shape[1])):
            found = np.flatnonzero(region.any(axis))
            margin = max(6, round(self.config.margin * (found[-1] - found[0] + 1)))
            spans.append(slice(max(0, found[0] - margin), min(size, found[-1] + 1 + margin)))
        return spans[0], spans[1]

    def _refined(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """GrabCut within a window; the labels as they are where one of the two sides is missing."""
        labels = labels.copy()
        likely = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        if self.config.iterations and likely.any() and not likely.all():
            cv2.setRNGSeed(0)  # GrabCut starts from k-means with OpenCV's random numbers.
            background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(
                np.ascontiguousarray(image[..., ::-1]),
                labels,
                (0, 0, 0, 0),
                background,
                foreground,
                self.config.iterations,
                cv2.GC_INIT_WITH_MASK,
            )
        return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _tidy(cut: np.ndarray, marks: Marks, likely: np.ndarray) -> np.ndarray:
    """Keep what hangs together with the marks, or the greatest part if only a box was given."""
    cut = cut & ~marks.outside
    if not cut.any():
        return likely
    if marks.inside.any():
        return touching(cut | marks.inside, marks.inside)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cut.astype(np.uint8), connectivity=8)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def separation(image: np.ndarray, mask: np.ndarray) -> float:
    """Return 1 less the Bhattacharyya coefficient of the colours in a mask and around it; 0 if one has no pixels."""
    drawn = mask.astype(np.uint8)
    around = (cv2.dilate(drawn, np.ones((2 * AROUND + 1,) * 2)) - cv2.dilate(drawn, np.ones((3, 3)))) > 0
    if not (mask.any() and around.any()):
        return 0.0
    return float(np.clip(1 - np.sqrt(_shares(image[mask]) * _shares(image[around])).sum(), 0, 1))


def _shares(pixels: np.ndarray) -> np.ndarray:
    """Which share of pixels, uint8[P, 3], has each colour, float[BINS**3]."""
    codes = (pixels // (256 // BINS)).astype(int) @ np.array([BINS * BINS, BINS, 1])
    return np.bincount(codes, minlength=BINS**3) / len(pixels)
