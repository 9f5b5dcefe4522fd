"""Image geometry: one affine map per camera, shared by pixels, prompts and masks.

All coordinates are normalised: [0, 1] x [0, 1] over the source image (as the camera delivered it) and over the target
image (as the backbone reads it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from pixelvla_core.prompts import Box, Line, Point

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Affine:
    """Axis-aligned map from source to target coordinates: ``x' = scale_x * x + shift_x``, likewise y.

    A negative scale mirrors. Whatever resizing, cropping, padding or flipping an image goes through is one of these.
    """

    scale_x: float = 1.0
    scale_y: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Map one point."""
        return self.scale_x * x + self.shift_x, self.scale_y * y + self.shift_y

    def then(self, after: Affine) -> Affine:
        """The map that applies ``self`` first and ``after`` second."""
        return Affine(
            after.scale_x * self.scale_x,
            after.scale_y * self.scale_y,
            after.scale_x * self.shift_x + after.shift_x,
            after.scale_y * self.shift_y + after.shift_y,
        )

    def inverse(self) -> Affine:
        """The map from target back to source."""
        return Affine(1 / self.scale_x, 1 / self.scale_y, -self.shift_x / self.scale_x, -self.shift_y / self.scale_y)

    @classmethod
    def crop(cls, x0: float, y0: float, x1: float, y1: float) -> Affine:
        """Cut out the box [x0, x1] x [y0, y1] of the source; the box becomes the whole target."""
        return cls(1 / (x1 - x0), 1 / (y1 - y0), -x0 / (x1 - x0), -y0 / (y1 - y0))

    @classmethod
    def letterbox(cls, width: int, height: int) -> Affine:
        """Pad a width x height image symmetrically to a square that becomes the whole target."""
        side = max(width, height)
        return cls(width / side, height / side, (side - width) // 2 / side, (side - height) // 2 / side)

    @classmethod
    def rotate180(cls) -> Affine:
        """Turn the image upside down and mirror it, as LIBERO's images need."""
        return cls(-1.0, -1.0, 1.0, 1.0)


def warp(prompt: Point | Line | Box, affine: Affine) -> Sequence[Point | Line | Box]:
    """Follow the image: the prompt in target coordinates, cut where the target image ends.

    A point outside is dropped. A box is clipped, and dropped if nothing of it remains. A line is clipped piece by
    piece: where it leaves and comes back it becomes several lines, each at least two different vertices long.
    """
    if isinstance(prompt, Point):
        x, y = _place(affine, prompt.x, prompt.y)
        return [Point(x, y, prompt.positive)] if 0.0 <= x <= 1.0 and 0.0 <= y <= 1.0 else []
    if isinstance(prompt, Box):
        return _warp_box(prompt, affine)
    return [Line(piece) for piece in clip_polyline([_place(affine, x, y) for x, y in prompt.vertices])]


def _place(affine: Affine, x: float, y: float) -> tuple[float, float]:
    """Map a point; one that rounding puts just beyond the edge of the image is on the edge."""
    x, y = (min(max(v, 0.0), 1.0) if -_ROUNDING <= v <= 1.0 + _ROUNDING else v for v in affine(x, y))
    return x, y


def _warp_box(box: Box, affine: Affine) -> list[Box]:
    (xa, ya), (xb, yb) = affine(box.x0, box.y0), affine(box.x1, box.y1)
    x0, x1 = max(min(xa, xb), 0.0), min(max(xa, xb), 1.0)
    y0, y1 = max(min(ya, yb), 0.0), min(max(ya, yb), 1.0)
    return [Box(x0, y0, x1, y1)] if x0 < x1 and y0 < y1 else []


def clip_polyline(vertices: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], ...]]:
    """Cut a polyline at the unit square's edge and return the pieces inside, in order."""
    pieces: list[list[tuple[float, float]]] = []
    open_end = False  # the last piece reaches the start of the next segment
    for start, end in pairwise(vertices):
        inside = _clip_segment(start, end)
        if inside is None:
            open_end = False
            continue
        if not open_end:
            pieces.append([inside[0]])
        if inside[1] != pieces[-1][-1]:
            pieces[-1].append(inside[1])
        open_end = inside[1] == end
    return [tuple(piece) for piece in pieces if len(piece) > 1]


def _clip_segment(start: tuple[float, float], end: tuple[float, float]) -> tuple | None:
    """The part of a segment inside the unit square (Liang and Barsky 1984), or None."""
    enter, leave = 0.0, 1.0
    for a, b in zip(start, end, strict=True):
        if a == b:
            if not 0.0 <= a <= 1.0:
                return None
            continue
        first, second = sorted(((0.0 - a) / (b - a), (1.0 - a) / (b - a)))
        enter, leave = max(enter, first), min(leave, second)
    if enter > leave:
        return None
    return _between(start, end, enter), _between(start, end, leave)


def _between(start: tuple[float, float], end: tuple[float, float], share: float) -> tuple[float, float]:
    if share in (0.0, 1.0):
        return end if share else start
    x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)


def coverage(mask: np.ndarray, affine: Affine, rows: int, columns: int) -> np.ndarray:
    """Covered fraction of each cell of a target raster, by exact area, so that no mask is too small to leave a trace.

    Args:
        mask: bool[height, width] over the whole source image.
        affine: From the source to the target image.
        rows: Rows of the raster over the whole target image.
        columns: Its columns.

    Returns:
        float32[rows, columns] in [0, 1].
    """
    height, width = mask.shape
    down = _overlap(height, rows, affine.scale_y, affine.shift_y)
    across = _overlap(width, columns, affine.scale_x, affine.shift_x)
    return (down @ mask.astype(np.float64) @ across.T).clip(0.0, 1.0).astype(np.float32)


def center(mask: np.ndarray, affine: Affine) -> tuple[float, float]:
    """Centre of mass (x, y), in target coordinates, of what the target image shows of a mask; it must show some."""
    height, width = mask.shape
    (low_y, high_y), (low_x, high_x) = (
        (np.clip(edge, 0.0, 1.0) for edge in _edges(*axis))
        for axis in ((height, affine.scale_y, affine.shift_y), (width, affine.scale_x, affine.shift_x))
    )
    areas = mask * np.outer(high_y - low_y, high_x - low_x)
    total = areas.sum()
    x, y = areas.sum(0) @ (low_x + high_x) / 2 / total, areas.sum(1) @ (low_y + high_y) / 2 / total
    return float(x), float(y)


def _edges(pixels: int, scale: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel starts and ends in the target along one axis, float64[pixels] each."""
    edges = scale * np.arange(pixels + 1) / pixels + shift
    return np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])


@lru_cache(maxsize=16)
def _overlap(pixels: int, cells: int, scale: float, shift: float) -> np.ndarray:
    """float64[cells, pixels]: the fraction of each cell that each pixel covers, along one axis."""
    low, high = _edges(pixels, scale, shift)
    left = np.arange(cells)[:, None] / cells
    return np.clip(np.minimum(high, left + 1 / cells) - np.maximum(low, left), 0.0, None) * cells
