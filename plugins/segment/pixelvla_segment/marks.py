"""Prompts drawn as pixels of one image. Shapes: H and W are the image's height and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pixelvla_core.api import Box, Line, Mask, Point, Prompt


@dataclass(frozen=True)
class Marks:
    """What a user marked.

    Attributes:
        inside: bool[H, W], pixels on points, lines and masks: certainly the object.
        outside: bool[H, W], pixels on negative points: certainly not.
        boxes: bool[H, W], pixels in boxes: nothing of the object is beyond them, if there are any.
        masked: bool[H, W], pixels of mask prompts.
    """

    inside: np.ndarray
    outside: np.ndarray
    boxes: np.ndarray
    masked: np.ndarray

    @classmethod
    def of(cls, prompts: Sequence[Prompt], shape: tuple[int, int]) -> Marks:
        """Draw prompts on an image of ``shape`` (H, W)."""
        inside, outside, boxes, masked = (np.zeros(shape, np.uint8) for _ in range(4))
        for prompt in prompts:
            if isinstance(prompt, Mask):
                masked |= _resized(prompt.array, shape)
            elif isinstance(prompt, Box):
                rows, columns = _pixels(prompt, shape)
                boxes[rows, columns] = 1
            elif isinstance(prompt, Line):
                _stroke(inside, [_pixel(vertex, shape) for vertex in prompt.vertices])
            elif isinstance(prompt, Point):
                _stroke(inside if prompt.positive else outside, [_pixel((prompt.x, prompt.y), shape)])
        return cls((inside | masked) > 0, outside > 0, boxes > 0, masked > 0)


def _pixel(point: tuple[float, float], shape: tuple[int, int]) -> tuple[int, int]:
    """Column and row of the pixel that holds a point; the far edge belongs to the last pixel."""
    return min(int(point[0] * shape[1]), shape[1] - 1), min(int(point[1] * shape[0]), shape[0] - 1)


def _pixels(box: Box, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns that a box covers, at least one of each."""
    left, top = _pixel((box.x0, box.y0), shape)
    right, bottom = round(box.x1 * shape[1]), round(box.y1 * shape[0])
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _stroke(canvas: np.ndarray, pixels: list[tuple[int, int]]) -> None:
    for start, end in zip(pixels, pixels[1:] or pixels, strict=False):
        cv2.line(canvas, start, end, color=1)


def _resized(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at another size, uint8[H, W]; by covered area, so that a small one does not vanish."""
    if mask.shape == shape:
        return mask.astype(np.uint8)
    covered = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    return (covered >= min(0.5, covered.max())).astype(np.uint8)
