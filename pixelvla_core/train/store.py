"""Rows of tensors in one file, written in any order and read through a memory map, each with its own checksum.

A row counts once its checksum is in place, so a build that was killed goes on where it stopped, and a row that was
damaged since is found and made again. The file is sparse: rows that nobody writes take no space.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.files import one_at_a_time, write_json

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


class Store:
    """Opens a store, or makes a new one if there is none of this layout.

    Args:
        folder: The store's own folder.
        layout: What its rows hold.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        with one_at_a_time(folder.with_name(folder.name + ".lock")):
            # Another run that wants the same store must find it made, not make it anew under our feet.
            if not self._same_layout():
                self._create()
        self._rows = np.memmap(folder / ROWS, np.uint8, "r", shape=(layout.rows, layout.row_bytes))
        self._checks = np.memmap(folder / CHECKS, np.uint32, "r", shape=(layout.rows,))

    def missing(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that are not there or do not match their checksum; reads the others once."""
        return [row for row in rows if not self._checks[row] or self._checks[row] != _check(self._rows[row])]

    def write(self, rows: np.ndarray, tensors: Mapping[str, Tensor]) -> None:
        """Write a batch, [B, ...] by name, to the rows with these numbers.

        Raises:
            OSError: the disk is full; a write through the map would kill the process instead.
        """
        parts = [_bytes(tensors[name]).reshape(len(rows), -1) for name in self.layout.tensors]
        with (self.folder / ROWS).open("r+b") as file, (self.folder / CHECKS).open("r+b") as checks:
            for row, content in zip(rows.tolist(), np.concatenate(parts, 1), strict=True):
                _write_at(file.fileno(), content.tobytes(), row * self.layout.row_bytes)
                _write_at(checks.fileno(), np.uint32(_check(content)).tobytes(), 4 * row)

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
        """Wait until everything is on the disk."""
        for name in (ROWS, CHECKS):
            with (self.folder / name).open("r+b") as file:
                os.fsync(file.fileno())

    def _same_layout(self) -> bool:
        path = self.folder / LAYOUT
        whole = all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == size
            for name, size in self._sizes()
        )
        try:
            return whole and json.loads(path.read_text(encoding="utf-8")) == self._description()
        except (OSError, ValueError):
            return False

    def _description(self) -> dict:
        tensors = {name: [list(shape), dtype] for name, (shape, dtype) in self.layout.tensors.items()}
        return {"rows": self.layout.rows, "tensors": tensors, "order": list(tensors)}

    def _sizes(self) -> list[tuple[str, int]]:
        return [(CHECKS, 4 * self.layout.rows), (ROWS, self.layout.rows * self.layout.row_bytes)]

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, size in self._sizes():
            (self.folder / name).unlink(missing_ok=True)
            with (self.folder / name).open("wb") as file:
                file.truncate(size)
        write_json(self.folder / LAYOUT, self._description())


def _write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of it; the system may take less at a time, as it does on a disk that fills or beyond 2 GiB."""
    left = memoryview(content)
    while left:
        done = os.pwrite(descriptor, left, offset)
        left, offset = left[done:], offset + done


def _check(content: np.ndarray) -> int:
    """The checksum of a row; zero stands for "not there", so none may be zero."""
    return zlib.crc32(content) or 1


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
