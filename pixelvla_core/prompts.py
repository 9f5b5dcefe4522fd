"""Visual prompts: points, lines, boxes and masks in normalised image coordinates.

x runs right and y runs down, both in [0, 1] over the whole image as the camera delivered it. (0, 0) is the outer corner
of the top-left pixel, so the centre of pixel (row i, column j) of an H x W image is ((j + 0.5) / W, (i + 0.5) / H).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real

import numpy as np

from pixelvla_core.errors import UserError


def _check_coordinates(what: str, values: Iterable[float]) -> None:
    for value in values:
        if not isinstance(value, Real):
            raise UserError(f"A {what} has the coordinate {value!r}, which is no number. Give numbers in [0, 1].")
        if not math.isfinite(value) or not 0.0 <= value <= 1.0:
            raise UserError(
                f"A {what} has the coordinate {value!r}. Prompts live in [0, 1] image coordinates (x right, y down). "
                "Divide pixel coordinates by the image's width and height, and drop prompts outside the image."
            )


@dataclass(frozen=True)
class Point:
    """A click at (x, y); ``positive=False`` means "not this"."""

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        _check_coordinates("point", (self.x, self.y))


@dataclass(frozen=True)
class Line:
    """A polyline through two or more (x, y) vertices; any sequence of pairs is taken and kept as tuples."""

    vertices: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        try:
            pairs = tuple((x, y) for x, y in self.vertices)
        except (TypeError, ValueError):
            raise UserError(
                f"A line has the vertices {self.vertices!r}, which are no pairs. Give two or more (x, y), such as "
                "((0.1, 0.2), (0.3, 0.4))."
            ) from None
        object.__setattr__(self, "vertices", pairs)
        _check_coordinates("line", (value for vertex in self.vertices for value in vertex))
        if len(set(self.vertices)) < 2:
            raise UserError(
                f"A line has the vertices {list(self.vertices)}, which has no length. A line needs at least two "
                "different vertices; use a point prompt to mark a single place."
            )


@dataclass(frozen=True)
class Box:
    """An axis-aligned box from (x0, y0), top left, to (x1, y1), bottom right."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        _check_coordinates("box", (self.x0, self.y0, self.x1, self.y1))
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise UserError(
                f"A box runs from ({self.x0}, {self.y0}) to ({self.x1}, {self.y1}), which encloses nothing. "
                "Give the top-left corner first and the bottom-right corner second."
            )


@dataclass(frozen=True, eq=False)
class Mask:
    """A region as ``array``, bool[H, W] over the whole image (any resolution)."""

    array: np.ndarray

    def __post_init__(self) -> None:
        array = isinstance(self.array, np.ndarray)
        if not array or self.array.ndim != 2 or self.array.dtype != np.bool_:
            found = (
                f"shape {self.array.shape} and type {self.array.dtype}"
                if array
                else f"type {type(self.array).__name__}"
            )
            raise UserError(
                f"A mask prompt has {found}; expected a bool NumPy array of "
                "shape [height, width]. Threshold a soft mask first, and split several masks into several prompts."
            )
        if not self.array.any():
            raise UserError("A mask prompt is empty: no pixel is set. Leave it out, or mark at least one pixel.")


Prompt = Point | Line | Box | Mask
KINDS: dict[str, type] = {"point": Point, "line": Line, "box": Box, "mask": Mask}
