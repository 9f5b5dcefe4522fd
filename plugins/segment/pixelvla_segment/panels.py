"""Parts of furniture for the detector ``colour``: drawers, doors and handles.

A cabinet's faces are plane and lit evenly, so lines across it separate its fronts. Rows are told apart by the median of
their colours, which neither handles nor a gripper in front of them change. Then, from the top:

- the first face is the lid if it is lighter than the next, for light comes from above;
- a thin lighter strip is the upper edge of the front beneath it, a thin darker one a gap or the frame;
- what is of another colour between two fronts is the inside of an open drawer and belongs to the front beneath.

Furniture must stand upright in the image and be seen from the front, if need be from above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, pairwise

import numpy as np

from pixelvla_segment.pieces import Piece

LINE = 8
"""Difference of the median colours of neighbouring rows, of 255, above which a line runs between them."""
THIN = 0.34
"""A strip is thin if it is at most this share as high as the front beneath it."""
LEAST = 0.06
"""Least height of a front as a share of its width; what is lower is trim."""
ALIGNED = 0.6
"""Share of their columns that pieces of one cabinet have in common."""
OPEN, SHUT, WHOLE = 1.0, 0.8, 0.5
"""How surely an open drawer, a front among others, and a face without any line across are what is meant."""
UNLIKE = 40
"""Difference of a colour channel, of 255, by which a handle stands out from its front."""


@dataclass(frozen=True)
class Panel:
    """A front, in pixels; bottom and right exclusive. ``score`` is how surely it is one, in [0, 1]."""

    top: int
    bottom: int
    left: int
    right: int
    score: float

    @property
    def box(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, eq=False)
class Band:
    """Rows of like colour between two lines; bottom exclusive.

    Attributes:
        light: Its median brightness.
        own: Whether it has the furniture's colour.
    """

    top: int
    bottom: int
    light: float
    own: bool

    @property
    def height(self) -> int:
        return self.bottom - self.top


def parts(image: np.ndarray, mask: np.ndarray, pieces: Sequence[Piece], noun: str) -> list[Panel]:
    """Return the parts that a noun names, the surest first.

    Args:
        image: uint8[H, W, 3].
        mask: bool[H, W], pixels of the furniture's colour.
        pieces: What hangs together in the mask.
        noun: "drawer", "door" or "handle".
    """
    fronts = [front for box in cabinets(pieces) for front in fronts_of(image, mask, box)]
    if noun == "door":
        fronts = [door for front in fronts for door in _doors(image, mask, front)]
    if noun == "handle":
        fronts = [handle for front in fronts if (handle := _handle(image, front)) is not None]
    return sorted(fronts, key=lambda panel: -panel.score)


def cabinets(pieces: Sequence[Piece]) -> list[Panel]:
    """Put pieces together that stand on each other: an open drawer's inside may divide a cabinet."""
    boxes: list[Panel] = []
    for piece in sorted(pieces, key=lambda piece: piece.top):
        height, width = piece.mask.shape
        box = Panel(piece.top, piece.top + height, piece.left, piece.left + width, 1.0)
        above = next((place for place, other in enumerate(boxes) if _stands_under(box, other)), None)
        if above is None:
            boxes.append(box)
        else:
            boxes[above] = _around(boxes[above], box)
    return boxes


def _stands_under(box: Panel, other: Panel) -> bool:
    common = min(box.right, other.right) - max(box.left, other.left)
    gap = box.top - other.bottom
    return common >= ALIGNED * max(box.right - box.left, other.right - other.left) and gap < other.bottom - other.top


def _around(one: Panel, other: Panel) -> Panel:
    return Panel(
        min(one.top, other.top),
        max(one.bottom, other.bottom),
        min(one.left, other.left),
        max(one.right, other.right),
        1.0,
    )


def fronts_of(image: np.ndarray, mask: np.ndarray, box: Panel) -> list[Panel]:
    """Return the fronts of a cabinet; all of it if no line runs across."""
    bands = list(dropwhile(lambda band: not band.own, _bands(image[box.box], mask[box.box])))
    if len(bands) < 2:
        return [replace(box, score=WHOLE)]
    found = [replace(box, top=top, bottom=bottom, score=score) for top, bottom, score in _read(bands, box)]
    return [_narrowed(mask, front) for front in found]


def _read(bands: Sequence[Band], box: Panel) -> Iterator[tuple[int, int, float]]:
    """Yield top, bottom and score of each front among a cabinet's bands, in pixels of the image."""
    least = LEAST * (box.right - box.left)
    own = [band for band in bands if band.own and band.height >= least]
    if len(own) > 1 and own[0].light > own[1].light:
        bands = bands[bands.index(own[0]) + 1 :]
    begun: Band | None = None
    inside = False
    for band, beneath in zip(bands, (*bands[1:], None), strict=True):
        thin = beneath is not None and band.height <= THIN * beneath.height
        if not band.own:
            begun, inside = begun or band, True
        elif thin and beneath is not None and (not beneath.own or band.light < beneath.light):
            begun, inside = None, False
        elif thin:
            begun = begun or band
        else:
            top = (begun or band).top
            if band.height >= least:
                yield box.top + top, box.top + band.bottom, OPEN if inside else SHUT
            begun, inside = None, False


def _bands(image: np.ndarray, mask: np.ndarray) -> list[Band]:
    """Cut a cabinet's rows where lines run across; blurred lines are cut where they are strongest."""
    rows = np.median(image, axis=1)
    change = np.abs(np.diff(rows, axis=0)).max(-1)
    cuts = [start + 1 + int(np.argmax(change[start:end])) for start, end in _runs(change > LINE)]
    edges = [0, *cuts, len(rows)]
    return [
        Band(top, bottom, float(np.median(rows[top:bottom].max(-1))), bool(mask[top:bottom].mean() > 0.5))
        for top, bottom in pairwise(edges)
    ]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last (exclusive) place of each run of set flags."""
    edges = np.flatnonzero(np.diff(np.pad(flags.astype(np.int8), 1)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _narrowed(mask: np.ndarray, panel: Panel) -> Panel:
    """Leave out columns at both sides in which hardly anything has the furniture's colour."""
    columns = np.flatnonzero(mask[panel.box].mean(0) > 0.3)
    if not len(columns):
        return panel
    return replace(panel, left=panel.left + int(columns[0]), right=panel.left + int(columns[-1]) + 1)


def _doors(image: np.ndarray, mask: np.ndarray, front: Panel) -> list[Panel]:
    """Divide a front at the lines down it."""
    turned = _bands(image[front.box].swapaxes(0, 1), mask[front.box].T)
    least = LEAST * (front.bottom - front.top)
    return [
        replace(front, left=front.left + band.top, right=front.left + band.bottom)
        for band in turned
        if band.own and band.height > least
    ] or [front]


def _handle(image: np.ndarray, front: Panel) -> Panel | None:
    """The box of what stands out from a front in its inner part; None where nothing does."""
    pixels = image[front.box].astype(int)
    unlike = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(-1) > UNLIKE
    width = unlike.shape[1]
    inner = unlike.copy()
    inner[:, : width // 8] = inner[:, width - width // 8 :] = False
    rows, columns = np.flatnonzero(inner.mean(1) > 0), np.flatnonzero(inner.any(0))
    if not len(columns) or inner.mean() > 0.5:
        return None
    return replace(
        front,
        top=front.top + int(rows[0]),
        bottom=front.top + int(rows[-1]) + 1,
        left=front.left + int(columns[0]),
        right=front.left + int(columns[-1]) + 1,
    )
