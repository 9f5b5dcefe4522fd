"""Visual prompts derived from a mask, as a person might give them: on the object, away from its edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixelvla_core.errors import DataError, suggest
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt

_STROKES = 4
"""How many strokes are tried; the longest that stays on the object is kept."""


def derive_prompt(mask: np.ndarray, kind: str, rng: np.random.Generator) -> Prompt:
    """Derive one prompt from a mask.

    Args:
        mask: bool[H, W], not empty.
        kind: "point" (inside, in the inner half of the object's depth), "line" (a stroke that stays inside), "box"
            (the pixels' outer edges) or "mask".
        rng: the only source of randomness.

    Raises:
        DataError: the mask is empty or the kind unknown.
    """
    if kind not in _DERIVE:
        raise DataError(f"There is no prompt kind {kind!r}.{suggest(kind, _DERIVE)} Known: {', '.join(_DERIVE)}.")
    if not mask.any():
        raise DataError(f"A {kind} was asked for on an empty mask. Skip frames on which the target is not visible.")
    return _DERIVE[kind](mask, rng)


def depth(mask: np.ndarray) -> np.ndarray:
    """Return int[H, W]: steps up, down, left or right from each set pixel to the nearest one that is not (0 outside).

    Beyond the array counts as outside.
    """
    import cv2

    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    # Its sums of whole steps are exact in float32 below 2**24, which no image is wide.
    return cv2.distanceTransform(padded, cv2.DIST_L1, 3)[1:-1, 1:-1].astype(np.int64)


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the set pixels, bottom and right exclusive; the mask is not empty."""
    import cv2

    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return top, top + height, left, left + width


def inner_pixels(mask: np.ndarray) -> np.ndarray:
    """Return int[M, 2]: rows and columns of the pixels in the inner half of the mask's depth; it is not empty."""
    top, bottom, left, right = extent(mask)
    depths = depth(mask[top:bottom, left:right])
    rows, columns = np.nonzero(depths * 2 >= max(2, depths.max()))
    return np.stack([rows + top, columns + left], axis=1)


def _centre(pixel: np.ndarray, shape: tuple[int, int]) -> tuple[float, float]:
    return float((pixel[1] + 0.5) / shape[1]), float((pixel[0] + 0.5) / shape[0])


def derive_point(mask: np.ndarray, rng: np.random.Generator, inner: np.ndarray | None = None) -> Point:
    """A click in the inner half of the object's depth; ``inner`` are its pixels, where they are known already."""
    inner = inner_pixels(mask) if inner is None else inner
    return Point(*_centre(inner[rng.integers(len(inner))], mask.shape))


def derive_line(mask: np.ndarray, rng: np.random.Generator, inner: np.ndarray | None = None) -> Line:
    """A stroke between two such places that stays on the object; on an object too thin for one, within a pixel."""
    inner = inner_pixels(mask) if inner is None else inner
    pairs = inner[rng.integers(len(inner), size=(_STROKES, 2))]
    lengths = np.abs(pairs[:, 0] - pairs[:, 1]).sum(1)
    for index in np.argsort(-lengths, kind="stable"):
        start, end = pairs[index]
        if lengths[index] and mask[tuple(crossed(start, end).T)].all():
            return Line((_centre(start, mask.shape), _centre(end, mask.shape)))
    return _dash(pairs[0, 0], mask.shape)


def _dash(pixel: np.ndarray, shape: tuple[int, int]) -> Line:
    """A stroke within one pixel, for objects too thin for a longer one."""
    y = float((pixel[0] + 0.5) / shape[0])
    return Line(((float((pixel[1] + 0.25) / shape[1]), y), (float((pixel[1] + 0.75) / shape[1]), y)))


def crossed(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return int[M, 2]: rows and columns of all pixels that the segment between two pixels' centres passes through."""
    step = (end - start).astype(float)
    crossings = [np.zeros(1), np.ones(1)]
    for axis in (0, 1):
        if step[axis]:
            crossings.append((np.arange(abs(int(step[axis]))) + 0.5) / abs(step[axis]))
    times = np.sort(np.concatenate(crossings))
    middle = (times[:-1] + times[1:]) / 2
    return np.floor(start + 0.5 + middle[:, None] * step).astype(int)


def derive_box(mask: np.ndarray) -> Box:
    """The outer edges of the set pixels."""
    top, bottom, left, right = extent(mask)
    height, width = mask.shape
    return Box(left / width, top / height, right / width, bottom / height)


_DERIVE: dict[str, Callable[[np.ndarray, np.random.Generator], Prompt]] = {
    "point": derive_point,
    "line": derive_line,
    "box": lambda mask, rng: derive_box(mask),
    "mask": lambda mask, rng: Mask(mask),
}
