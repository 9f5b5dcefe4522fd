"""Prompts as the SAM 2 family takes them: points with labels, at most one box and at most one mask for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pixelvla_core.api import Box, Line, Mask, Point, Prompt, UserError

LOGIT = 10.0
"""What stands for certain pixels of a mask prompt, whose own scale is logits; as SAM 2 does within videos."""


@dataclass(frozen=True, eq=False)
class Cue:
    """What marks one object, in [0, 1] image coordinates.

    Attributes:
        points: float32[N, 2], x and y.
        labels: int32[N], 1 on the object and 0 beside it.
        box: float32[4] or None; the smallest one around several.
        mask: bool[H, W] or None; several put together.
    """

    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None
    mask: np.ndarray | None

    @property
    def ambiguous(self) -> bool:
        """Whether one point is all there is, which leaves open how much of what it lies on is meant."""
        return self.box is None and self.mask is None and len(self.labels) == 1

    @property
    def form(self) -> tuple[int, bool, bool]:
        """What cues must share to be decoded together: number of points, whether there is a box, and a mask."""
        return len(self.labels), self.box is not None, self.mask is not None

    def logits(self, size: int) -> np.ndarray:
        """Return the mask as logits, float32[size, size]."""
        assert self.mask is not None
        share = cv2.resize(self.mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        return LOGIT * (2 * share - 1)


def cue_of(prompts: Sequence[Prompt], line_points: int) -> Cue:
    """Turn prompts that mark one object into a cue.

    A mask also gives a box unless there is one: masks alone are the weakest prompt of these models.

    Raises:
        UserError: nothing is marked, only excluded.
    """
    if all(isinstance(prompt, Point) and not prompt.positive for prompt in prompts):
        raise UserError(
            "The prompts mark nothing: give a positive point, a line, a box or a mask; negative points only exclude."
        )
    pairs = [(prompt.x, prompt.y, int(prompt.positive)) for prompt in prompts if isinstance(prompt, Point)]
    for prompt in prompts:
        if isinstance(prompt, Line):
            pairs += [(x, y, 1) for x, y in along(prompt, line_points)]
    table = np.array(pairs, np.float32).reshape(-1, 3)
    mask = _joined([prompt.array for prompt in prompts if isinstance(prompt, Mask)])
    boxes = [(prompt.x0, prompt.y0, prompt.x1, prompt.y1) for prompt in prompts if isinstance(prompt, Box)]
    box = _around(boxes) if boxes else _box_of(mask) if mask is not None else None
    return Cue(table[:, :2], table[:, 2].astype(np.int32), box, mask)


def along(line: Line, count: int) -> list[tuple[float, float]]:
    """Return points evenly spread over a line, each in the middle of its share."""
    vertices = np.array(line.vertices)
    reached = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(vertices, axis=0).T))])
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    return [
        (float(np.interp(at, reached, vertices[:, 0])), float(np.interp(at, reached, vertices[:, 1]))) for at in wanted
    ]


def _around(boxes: list[tuple[float, float, float, float]]) -> np.ndarray:
    table = np.array(boxes, np.float32)
    return np.concatenate([table[:, :2].min(0), table[:, 2:].max(0)])


def _joined(masks: list[np.ndarray]) -> np.ndarray | None:
    """Masks of any sizes put together at the size of the first."""
    if not masks:
        return None
    size = masks[0].shape[::-1]
    return np.logical_or.reduce(
        [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in masks]
    )


def _box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return np.array(
        [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height], np.float32
    )
