"""Masks as COCO's compressed run lengths, the way pycocotools writes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from pixelvla_core.annotations.derive import Extent, extent
from pixelvla_core.errors import DataError

MOST_PIXELS = 1 << 28
"""A mask that claims more is damaged; it would take all memory."""
_CHARACTERS = bytes(range(48, 112))


@dataclass(frozen=True)
class Rle:
    """A bool[height, width] mask as COCO's ``counts`` string: runs in column-major order, starting with zeros."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def encode(cls, mask: np.ndarray, part: Extent | None = None) -> Rle:
        """Compress bool[H, W]; ``part`` is the extent of its set pixels, where it is known already."""
        height, width = mask.shape
        edges = _edges(mask, part or extent(mask))
        runs = np.diff(edges, prepend=0, append=height * width).tolist()
        coded = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return cls(height, width, coded["counts"])

    def decode(self) -> np.ndarray:
        """Return bool[H, W].

        Raises:
            DataError: the runs do not fill the mask.
        """
        try:
            return coco.decode(self._coco()).view(np.bool_)
        except ValueError as error:
            raise DataError(
                f"A mask of {self.height} x {self.width} pixels has damaged run lengths: {error}."
            ) from error

    @property
    def area(self) -> int:
        """Number of set pixels.

        Raises:
            DataError: there are more than the mask has.
        """
        if (area := int(coco.area(self._coco()))) > self.height * self.width:
            raise DataError(f"A mask of {self.height} x {self.width} pixels has run lengths for {area} set ones.")
        return area

    @property
    def box(self) -> list[float]:
        """Left, top, width and height of the set pixels."""
        return coco.toBbox(self._coco()).tolist()

    def check(self) -> None:
        """Raise DataError unless the runs fill exactly height x width pixels."""
        total = sum(_runs(self._coco()["counts"]))
        if total != self.height * self.width:
            raise DataError(
                f"A mask of {self.height} x {self.width} pixels has run lengths for {total} instead of "
                f"{self.height * self.width} pixels."
            )

    def _coco(self) -> dict:
        """The mask for pycocotools, which computes nonsense or crashes where the size or a character cannot be."""
        if not (self.height and self.width and min(self.height, self.width) > 0):
            raise DataError(f"A mask has {self.height} x {self.width} pixels; both must be there and above 0.")
        if self.height * self.width > MOST_PIXELS:
            raise DataError(f"A mask has {self.height} x {self.width} pixels; it can have at most {MOST_PIXELS}.")
        if not self.counts or (strange := self.counts.translate(None, _CHARACTERS)):
            held = f"hold the byte {strange[0]}, which COCO's format does not use" if self.counts else "are empty"
            raise DataError(f"A mask's run lengths {held}.")
        if self.counts[-1] - 48 & 32:  # pycocotools would read on in memory that is not its own
            raise DataError("A mask's run lengths end in the middle of a number.")
        return {"size": [self.height, self.width], "counts": self.counts}


def _edges(mask: np.ndarray, part: Extent) -> np.ndarray:
    """Where runs begin, counted down the columns and then to the right."""
    top, bottom, left, right = part
    rows = bottom - top
    columns = np.zeros((right - left, rows + 2), np.int8)
    columns[:, 1:-1] = mask[top:bottom, left:right].T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 2)
    edges = (left + column) * len(mask) + top + row
    if rows == len(mask):
        # What fills a column to its end may go on at the next one's beginning: no run begins there.
        going_on = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([going_on, going_on + 1]))
    return edges[:-1] if len(edges) and edges[-1] == mask.size else edges


def _runs(counts: bytes) -> list[int]:
    """Expand COCO's string: 5 bits per character plus 48, bit 5 continues, from the third run on the difference to the
    run before last is stored."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = character - 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        value -= (1 << shift) if code & 16 else 0
        value += runs[-2] if len(runs) > 2 else 0
        if value < 0:
            raise DataError("A mask has a run of negative length.")
        runs.append(value)
        value = shift = 0
    if shift:
        raise DataError("A mask's run lengths end in the middle of a number.")
    return runs
