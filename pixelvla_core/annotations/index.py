"""Where the rows of a sidecar are, and which are usable, without their masks. N rows in F files.

An index is one file of the cache that is mapped into memory: int64[N] keys, int64[F + 1] first rows of the files, and
uint8[N] statuses, so that 160,000 episodes take 59 MB on disk and next to nothing in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pixelvla_core.annotations.schema import MOST_EPISODES, MOST_FRAMES, MOST_INSTANCES, STATUSES
from pixelvla_core.errors import DataError, suggest
from pixelvla_core.files import atomic_file

COLUMNS = ("episode", "frame", "instance", "status")
"""What an index is made from."""

_FRAME_BITS, _INSTANCE_BITS = MOST_FRAMES.bit_length() - 1, MOST_INSTANCES.bit_length() - 1


@dataclass(frozen=True, eq=False)
class Index:
    """An index as it lies in the cache.

    Attributes:
        keys: int64[N], ascending, as :func:`keys_of` makes them.
        starts: int64[F + 1], the first row of each file, and N.
        statuses: uint8[N], places in ``STATUSES``.
    """

    keys: np.ndarray
    starts: np.ndarray
    statuses: np.ndarray

    @classmethod
    def load(cls, path: Path, files: int) -> Index:
        """Map the index of a sidecar with so many files."""
        stored = np.asarray(np.memmap(path, np.uint8, "r"))
        keys, starts, _ = np.cumsum([(len(stored) - 8 * (files + 1)) // 9 * 8, 8 * (files + 1), 0])
        return cls(stored[:keys].view(np.int64), stored[keys:starts].view(np.int64), stored[starts:])

    def place(self, row: int) -> tuple[int, int]:
        """Return which file a row is in, and which of its rows it is."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return file, row - int(self.starts[file])


def write_index(path: Path, tables: Iterable[tuple[Path, pa.Table]]) -> None:
    """Make an index from the ``COLUMNS`` of each file, one after the other.

    Raises:
        DataError: rows are not in order, or have indices or a status that a sidecar cannot hold.
    """
    last, starts, statuses = -1, [0], []
    with atomic_file(path) as partial, partial.open("wb") as file:
        for name, table in tables:
            keys = checked_keys(name, table, last)
            last = int(keys[-1]) if len(keys) else last
            starts.append(starts[-1] + len(keys))
            statuses.append(_checked_statuses(name, table))
            file.write(keys.tobytes())
        file.write(np.array(starts, np.int64).tobytes())
        file.writelines(each.tobytes() for each in statuses)


def keys_of(episodes: np.ndarray, frames: np.ndarray, instances: np.ndarray | int) -> np.ndarray:
    """Return int64[N] that sorts like (episode, frame, instance)."""
    above = episodes.astype(np.int64) << (_FRAME_BITS + _INSTANCE_BITS)
    return above | (frames.astype(np.int64) << _INSTANCE_BITS) | np.int64(instances)


def indices_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the episodes, frames and instances, int64[N] each, that :func:`keys_of` made keys of."""
    return keys >> (_FRAME_BITS + _INSTANCE_BITS), keys >> _INSTANCE_BITS & MOST_FRAMES - 1, keys & MOST_INSTANCES - 1


def checked_keys(name: Path, table: pa.Table, last: int) -> np.ndarray:
    """Return int64[N]: the keys of a file's rows, all above the ``last`` one of the file before it.

    Raises:
        DataError: rows are not in order, or have indices that a sidecar cannot hold.
    """
    indices = [_values(table[column]) for column in COLUMNS[:3]]
    for column, values, limit in zip(COLUMNS, indices, (MOST_EPISODES, MOST_FRAMES, MOST_INSTANCES), strict=False):
        unsigned = values.view(f"u{values.dtype.itemsize}")  # what is negative is too large
        if len(values) and unsigned.max() >= limit:
            raise DataError(
                f"{name} has a row whose {column} is {values[unsigned >= limit][0]}; it must be from 0 to {limit - 1}. "
                "`pixelvla annotations validate` names all such rows; write them again."
            )
    keys = keys_of(*indices)
    if (np.diff(keys, prepend=last) <= 0).any():
        raise DataError(
            f"The rows in {name} are not in the order of episode, frame and instance, or one is twice, so they cannot "
            "be found. `pixelvla annotations validate` names the first; write them in order."
        )
    return keys


def _checked_statuses(name: Path, table: pa.Table) -> np.ndarray:
    coded = table["status"].combine_chunks().dictionary_encode()
    found = coded.dictionary.to_pylist()
    for status in found:
        if status not in STATUSES:
            raise DataError(
                f"{name} has rows with status {status!r}.{suggest(status, STATUSES)} Expected one of "
                f"{', '.join(STATUSES)}. `pixelvla annotations validate` names them; write them again."
            )
    return np.array([STATUSES.index(status) for status in found], np.uint8)[_values(coded.indices)]


def _values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The numbers of a column without nulls; ``to_numpy`` would import pandas, which takes 50 MB and half a second."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.from_dlpack(whole)
