"""Masks as COCO's compressed run lengths, the way pycocotools writes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from pixelvla_core.errors import DataError


@dataclass(frozen=True)
class Rle:
    """A bool[height, width] mask as COCO's ``counts`` string: runs in column-major order, starting with zeros."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def encode(cls, mask: np.ndarray) -> Rle:
        """Compress bool[H, W]."""
        coded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        return cls(mask.shape[0], mask.shape[1], coded["counts"])

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
        """Number of set pixels."""
        return int(coco.area(self._coco()))

    def check(self) -> None:
        """Raise DataError unless the runs fill exactly height x width pixels."""
        total = sum(_runs(self.counts))
        if total != self.height * self.width:
            raise DataError(
                f"A mask of {self.height} x {self.width} pixels has run lengths for {total} instead of "
                f"{self.height * self.width} pixels."
            )

    def _coco(self) -> dict:
        return {"size": [self.height, self.width], "counts": self.counts}


def _runs(counts: bytes) -> list[int]:
    """Expand COCO's string: 5 bits per character plus 48, bit 5 continues, from the third run on the difference to the
    run before last is stored."""
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = character - 48
        if not 0 <= code < 64:
            raise DataError(f"A mask's run lengths hold the byte {character}, which COCO's format does not use.")
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
