"""Rows of tensors in one memory-mapped file, written in any order, each with its own checksum.

A row counts once its checksum is in place, so a build that was killed goes on where it stopped, and a row that was
damaged since is found and made again.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.files import write_json

ROWS, CHECKS, LAYOUT = "rows.bin", "rows.crc32", "layout.json"


@dataclass(frozen=True)
class Layout:
    """What one row holds: name -> (shape, dtype as torch names it)."""

    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    rows: int

    @classmethod
    def of(cls, example: Mapping[str, Tensor], rows: int) -> Layout:
        """The layout of rows that look like an example without a batch axis."""
        named = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in example.items()}
        return cls(named, rows)

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return sum(math.prod(shape) * getattr(torch, dtype).itemsize for shape, dtype in self.tensors.values())

    @property
    def total_bytes(self) -> int:
        """Size of all rows."""
        return self.row_bytes * self.rows


class Store:
    """Opens a store, or makes a new one if there is none of this layout.

    Args:
        folder: The store's own folder.
        layout: What its rows hold.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        if not self._same_layout():
            self._create()
        self._rows = np.memmap(folder / ROWS, np.uint8, "r+", shape=(layout.rows, layout.row_bytes))
        self._checks = np.memmap(folder / CHECKS, np.uint32, "r+", shape=(layout.rows,))

    def missing(self) -> np.ndarray:
        """Rows that are not there or do not match their checksum; reads the whole store once."""
        return np.array([i for i in range(self.layout.rows) if self._checks[i] != self._check(i)], dtype=np.int64)

    def write(self, rows: np.ndarray, tensors: Mapping[str, Tensor]) -> None:
        """Write a batch, float[B, ...] by name, to the rows with these numbers."""
        parts = [_bytes(tensors[name]).reshape(len(rows), -1) for name in self.layout.tensors]
        self._rows[rows] = np.concatenate(parts, 1)
        for row in rows:
            self._checks[row] = self._check(row)

    def read(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Read rows as a batch, [B, ...] by name."""
        found, start = {}, 0
        for name, (shape, dtype) in self.layout.tensors.items():
            kind = getattr(torch, dtype)
            stop = start + math.prod(shape) * kind.itemsize
            part = torch.from_numpy(np.ascontiguousarray(self._rows[rows, start:stop]))
            found[name], start = part.view(kind).view(len(rows), *shape), stop
        return found

    def flush(self) -> None:
        """Write everything to the disk, rows before their checksums."""
        self._rows.flush()
        self._checks.flush()

    def _check(self, row: int) -> int:
        # Zero stands for "not there", so no checksum may be zero.
        return zlib.crc32(self._rows[row]) or 1

    def _same_layout(self) -> bool:
        path = self.folder / LAYOUT
        sizes = {ROWS: self.layout.total_bytes, CHECKS: 4 * self.layout.rows}
        whole = all((self.folder / n).is_file() and (self.folder / n).stat().st_size == s for n, s in sizes.items())
        try:
            return whole and json.loads(path.read_text(encoding="utf-8")) == self._description()
        except (OSError, ValueError):
            return False

    def _description(self) -> dict:
        tensors = {name: [list(shape), dtype] for name, (shape, dtype) in self.layout.tensors.items()}
        return {"rows": self.layout.rows, "tensors": tensors, "order": list(tensors)}

    def _create(self) -> None:
        """Reserve the space at once: on a full disk a memory map would kill the process later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, size in ((CHECKS, 4 * self.layout.rows), (ROWS, self.layout.total_bytes)):
            (self.folder / name).unlink(missing_ok=True)
            with (self.folder / name).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        write_json(self.folder / LAYOUT, self._description())


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
