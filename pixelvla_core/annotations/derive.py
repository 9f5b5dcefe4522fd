"""Visual prompts derived from a mask, as a person might give them: on the object, away from its edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pixelvla_core.errors import DataError, suggest
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt

Extent = tuple[int, int, int, int]
"""Top, bottom, left and right of a mask's pixels, bottom and right exclusive."""
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
    return _depth(np.pad(mask.astype(np.uint8), 1))[1:-1, 1:-1].astype(np.int64)


def _depth(inside: np.ndarray) -> np.ndarray:
    """Steps from each set pixel of uint8[H, W], exact in float32: they stay far below 2**24."""
    import cv2

    return cv2.distanceTransform(inside, cv2.DIST_L1, 3)


def extent(mask: np.ndarray) -> Extent:
    """Return (top, bottom, left, right) of the set pixels, bottom and right exclusive; all 0 for an empty mask."""
    import cv2

    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return top, top + height, left, left + width


class Inner:
    """The pixels in the inner half of a mask's depth, of which prompts are drawn.

    Args:
        mask: bool[H, W], not empty.
        part: its extent, if that is known already.
    """

    def __init__(self, mask: np.ndarray, part: Extent | None = None) -> None:
        import cv2

        self._top, bottom, self._left, right = part or extent(mask)
        self._width = right - self._left
        inside = mask[self._top : bottom, self._left : right].view(np.uint8)
        depths = _depth(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT))[1:-1, 1:-1]
        self._places = np.flatnonzero(depths >= max(1.0, cv2.minMaxLoc(depths)[1] / 2))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Return rows and columns of some of them, int64[*shape, 2]."""
        rows, columns = np.divmod(self._places[rng.integers(len(self._places), size=shape)], self._width)
        return np.stack([rows + self._top, columns + self._left], axis=-1)


def _centre(pixel: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    row, column = pixel.tolist()
    return (column + 0.5) / shape[1], (row + 0.5) / shape[0]


def derive_point(mask: np.ndarray, rng: np.random.Generator, inner: Inner | None = None) -> Point:
    """A click in the inner half of the object's depth; ``inner`` is the mask's, where it is known already."""
    return Point(*_centre((inner or Inner(mask)).draw(rng, ()), mask.shape))


def derive_line(mask: np.ndarray, rng: np.random.Generator, inner: Inner | None = None) -> Line:
    """A stroke between two such places that stays on the object; on an object too thin for one, within a pixel."""
    pairs = (inner or Inner(mask)).draw(rng, (_STROKES, 2))
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
    times = np.concatenate(crossings)
    times.sort()
    middle = (times[:-1] + times[1:]) / 2
    return np.floor(start + 0.5 + middle[:, None] * step).astype(int)


def derive_box(mask: np.ndarray, part: Extent | None = None) -> Box:
    """The outer edges of the set pixels; ``part`` is their extent, where it is known already."""
    top, bottom, left, right = part or extent(mask)
    height, width = mask.shape
    return Box(left / width, top / height, right / width, bottom / height)


_DERIVE: dict[str, Callable[[np.ndarray, np.random.Generator], Prompt]] = {
    "point": derive_point,
    "line": derive_line,
    "box": lambda mask, rng: derive_box(mask),
    "mask": lambda mask, rng: Mask(mask),
}
