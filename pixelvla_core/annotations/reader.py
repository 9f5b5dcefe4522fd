"""Reading a sidecar at random: rows are found by binary search in memory-mapped Arrow, masks decoded one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import FORMAT, MANIFEST, SCHEMA, VERSION, Annotation, from_dict
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file, sha256

_MANIFEST = {"dataset": str, "fingerprint": str, "camera": str, "counts": dict, "files": list}
_ENTRY = {"path": str, "sha256": str, "bytes": int}
"""What a manifest, and each of its files, must have to be read."""


def cache_dir() -> Path:
    """Where data that can be made again is kept: ``$PIXELVLA_CACHE``, or ``pixelvla`` in the user's cache folder."""
    if named := os.environ.get("PIXELVLA_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixelvla"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a sidecar's manifest.

    Raises:
        DataError: it is missing, is not JSON, is of another format or version, or lacks something.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is no annotation sidecar: it has no {MANIFEST}. Give the folder that the annotator wrote; "
            "an interrupted annotation has no manifest until it is run again to its end."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Copy it again, or annotate again.") from error
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise DataError(f"{path} has format and version {found}; this pixelvla reads {(FORMAT, VERSION)}.")
    _check_keys(path, manifest, _MANIFEST)
    for entry in manifest["files"]:
        _check_keys(path, entry, _ENTRY)
    return manifest


def _check_keys(path: Path, found: Any, wanted: Mapping[str, type]) -> None:
    wrong = [
        name for name, kind in wanted.items() if not isinstance(found, dict) or not isinstance(found.get(name), kind)
    ]
    if wrong:
        raise DataError(
            f"{path} has no {' and no '.join(f'{name} ({wanted[name].__name__})' for name in wrong)} in "
            f"{str(found)[:80]!r}; docs/annotations.md says what a manifest holds."
        )


class Sidecar:
    """The annotations of one dataset and camera.

    Args:
        folder: the sidecar.
        cache: folder for the memory-mapped copy of the rows; ``cache_dir()`` if left out.

    Raises:
        DataError: a file is missing or its checksum differs from the manifest's.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.camera: str = self.manifest["camera"]
        self.fingerprint: str = self.manifest["fingerprint"]
        mapped = (cache or cache_dir()) / "annotations" / f"{sha256(self.folder / MANIFEST)}.arrow"
        if not mapped.exists():
            self._map(mapped)
        self._table = pa.ipc.open_file(pa.memory_map(str(mapped))).read_all()
        self._keys = _key(*(self._column(name) for name in ("episode", "frame", "instance")))
        if (np.diff(self._keys) <= 0).any():
            raise DataError(
                f"The rows in {self.folder} are not in the order of episode, frame and instance, or one is twice, "
                "so they cannot be found. `pixelvla annotations validate` names the first; write them in order."
            )
        self._counts, self._heights, self._widths = (
            self._table[name] for name in ("mask_counts", "mask_height", "mask_width")
        )

    def __len__(self) -> int:
        return len(self._keys)

    def rows_of(self, episodes: np.ndarray, frames: np.ndarray, instance: int = 0) -> np.ndarray:
        """Return int64[N]: the row of each (episode, frame), -1 where there is none."""
        wanted = _key(episodes, frames, np.full(len(episodes), instance))
        rows = np.searchsorted(self._keys, wanted)
        found = self._keys[np.minimum(rows, len(self) - 1)] == wanted if len(self) else np.zeros(len(wanted), bool)
        return np.where(found, rows, -1)

    def statuses(self) -> np.ndarray:
        """Return the status of every row as an array of strings."""
        return np.array(self._table["status"].to_pylist(), dtype=str)

    def target(self, row: int) -> str:
        """Return what the object of one row is called in the instruction."""
        return self._table["target"][row].as_py()

    def row(self, row: int) -> Annotation:
        """Return one row, as found by :meth:`rows_of`.

        Raises:
            DataError: its box, points or lines are not what the format says.
        """
        try:
            return from_dict(self._table.slice(row, 1).to_pylist()[0])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Row {row} of {self.folder} has damaged values: {error}. `pixelvla annotations validate` names all "
                "such rows; write them again."
            ) from error

    def mask(self, row: int) -> np.ndarray:
        """Return the mask of one row, bool[H, W].

        Raises:
            DataError: the row has none; rows of status "ok" have one.
        """
        counts = self._counts[row].as_py()
        if counts is None:
            raise DataError(f"Row {row} of {self.folder} has no mask. `pixelvla annotations validate` checks all rows.")
        return Rle(self._heights[row].as_py(), self._widths[row].as_py(), counts).decode()

    def find(self, episode: int, frame: int) -> list[Annotation]:
        """Return all rows of one frame, the object to act on first."""
        first = np.searchsorted(self._keys, _key(*np.array([[episode], [frame], [0]])))[0]
        last = np.searchsorted(self._keys, _key(*np.array([[episode], [frame + 1], [0]])))[0]
        return [self.row(row) for row in range(first, last)]

    def check_dataset(self, fingerprint: str, dataset: str) -> None:
        """Refuse a dataset that the sidecar was not made for."""
        if fingerprint != self.fingerprint:
            raise DataError(
                f"The annotations in {self.folder} were made for {self.manifest['dataset']!r} with fingerprint "
                f"{self.fingerprint[:12]}, but {dataset} has {fingerprint[:12]}: the data changed, or it is another "
                "dataset. Point to the annotations of this dataset, or annotate it again."
            )

    def _column(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy()

    def _map(self, target: Path) -> None:
        """Verify every file and copy its rows to an uncompressed Arrow file that can be memory-mapped."""
        with atomic_file(target) as partial, pa.ipc.new_file(partial, SCHEMA) as sink:
            for entry in self.manifest["files"]:
                sink.write_table(read_shard(self.folder, entry))


def read_shard(folder: Path, entry: dict[str, Any]) -> pa.Table:
    """Read one file of a sidecar after comparing it with its manifest entry.

    Raises:
        DataError: the file is missing, has another size or checksum, is no Parquet, or has other columns.
    """
    path = Path(folder) / entry["path"]
    if not path.is_file():
        raise DataError(f"{path} is missing, though the manifest lists it. Copy the whole folder, or annotate again.")
    if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
        raise DataError(
            f"{path} is damaged: it has {path.stat().st_size} bytes and another checksum than the manifest says "
            f"({entry['bytes']} bytes). Copy it again, or remove the folder and annotate again."
        )
    try:
        table = pq.read_table(path, page_checksum_verification=True).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {_first_line(error)}. The tool that wrote it must write it again."
        ) from error
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; docs/annotations.md lists all of them.")
    try:
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{path} has a column of another type than docs/annotations.md lists: {_first_line(error)}. The tool that "
            "wrote it must write it again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _key(episodes: np.ndarray, frames: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """int64[N] that sorts like (episode, frame, instance): 20 bits of episode, 28 of frame, 15 of instance."""
    return (episodes.astype(np.int64) << 43) | (frames.astype(np.int64) << 15) | instances.astype(np.int64)
