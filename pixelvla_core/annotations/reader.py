"""Reading a sidecar at random: rows are found by binary search in a memory-mapped index, masks decoded one by one.

The cache holds an index of each sidecar, made when it is first opened, and an uncompressed copy of each file, made when
one of its rows is first asked for. Both are named after the content they were made from and appear whole or not at all,
so any number of processes may make them at once, and a changed sidecar has other ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from pixelvla_core.annotations.index import COLUMNS, Index, indices_of, keys_of, write_index
from pixelvla_core.annotations.parquet import parse
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import FORMAT, MANIFEST, OK, SCHEMA, STATUSES, VERSION, Annotation, from_dict
from pixelvla_core.errors import DataError, UserError, sentence
from pixelvla_core.files import atomic_file

_MANIFEST = {"dataset": str, "fingerprint": str, "camera": str, "counts": dict, "files": list}
_ENTRY = {"path": str, "sha256": str, "bytes": int}
"""What a manifest, and each of its files, must have to be read."""
_FACTS = {"rows": int, "episodes": list}
"""What is said of a file besides."""
Shard = tuple[dict[str, Any], pa.Table]
"""A file's manifest entry and its rows."""


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
        _check_keys(path, entry, {name: kind for name, kind in _FACTS.items() if name in entry})
        if "episodes" in entry and [*map(type, entry["episodes"])] != [int, int]:
            raise DataError(f"{path} has {entry['episodes']} as the first and last episode of {entry['path']}.")
        _check_place(path, entry)
    _check_keys(path, manifest["counts"], dict.fromkeys(manifest["counts"], int))
    if "episodes" in manifest:
        _check_keys(path, manifest["episodes"], _ENTRY)
        _check_place(path, manifest["episodes"])
    return manifest


def _check_place(path: Path, entry: Mapping[str, Any]) -> None:
    place = PurePosixPath(entry["path"])
    if place.is_absolute() or ".." in place.parts:
        raise DataError(f"{path} lists {entry['path']!r}, which is outside the sidecar. Make it again.")


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

    The first opening verifies every file. A file whose copy is not in the cache is verified again when one of its rows
    is first asked for, so no damaged row is ever returned.

    Args:
        folder: the sidecar.
        cache: folder for the index and the memory-mapped copies of the rows; ``cache_dir()`` if left out.

    Raises:
        DataError: a file is missing, its checksum differs from the manifest's, or its rows cannot be found by index.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.camera: str = self.manifest["camera"]
        self.fingerprint: str = self.manifest["fingerprint"]
        self._cache = (cache or cache_dir()) / "annotations"
        self._files: list[dict[str, Any]] = self.manifest["files"]
        self._tables: dict[int, pa.Table] = {}
        content = "".join(entry["sha256"] for entry in self._files)
        index = self._cache / f"{hashlib.sha256(content.encode()).hexdigest()}.index"
        if not index.exists():
            write_index(index, self._indexed())
        self._index = Index.load(index, len(self._files))

    def __len__(self) -> int:
        return len(self._index.keys)

    def rows_of(self, episodes: np.ndarray, frames: np.ndarray, instance: int = 0) -> np.ndarray:
        """Return int64[N]: the row of each (episode, frame), -1 where there is none."""
        keys, wanted = self._index.keys, keys_of(episodes, frames, instance)
        rows = np.searchsorted(keys, wanted)
        found = keys[np.minimum(rows, len(self) - 1)] == wanted if len(self) else np.zeros(len(wanted), bool)
        return np.where(found, rows, -1)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the episode, frame and instance, int64[N] each, of rows."""
        return indices_of(self._index.keys[rows])

    def usable(self) -> np.ndarray:
        """Return bool[N]: which rows have status "ok"."""
        return self._index.statuses == STATUSES.index(OK)

    def statuses(self) -> np.ndarray:
        """Return the status of every row as an array of strings; :meth:`usable` takes a twentieth of the memory."""
        return np.array(STATUSES)[self._index.statuses]

    def target(self, row: int) -> str:
        """Return what the object of one row is called in the instruction."""
        return self._values(row, "target")[0]

    def row(self, row: int) -> Annotation:
        """Return one row, as found by :meth:`rows_of`.

        Raises:
            DataError: its box, points or lines are not what the format says.
        """
        table, place = self._located(row)
        try:
            return from_dict(table.slice(place, 1).to_pylist()[0])
        except (UserError, TypeError, ValueError) as error:
            raise self._damaged(row, error) from error

    def mask(self, row: int) -> np.ndarray:
        """Return the mask of one row, bool[H, W].

        Raises:
            DataError: the row has none, though rows of status "ok" have one, or its run lengths cannot be.
        """
        height, width, counts = self._values(row, "mask_height", "mask_width", "mask_counts")
        if counts is None:
            raise DataError(f"Row {row} of {self.folder} has no mask. `pixelvla annotations validate` checks all rows.")
        try:
            return Rle(height, width, counts).decode()
        except DataError as error:
            raise self._damaged(row, error) from error

    def find(self, episode: int, frame: int) -> list[Annotation]:
        """Return all rows of one frame, the object to act on first."""
        ends = keys_of(np.array([episode, episode]), np.array([frame, frame + 1]), 0)
        first, last = np.searchsorted(self._index.keys, ends)
        return [self.row(row) for row in range(first, last)]

    def check_dataset(self, fingerprint: str, dataset: str) -> None:
        """Refuse a dataset that the sidecar was not made for."""
        if fingerprint != self.fingerprint:
            raise DataError(
                f"The annotations in {self.folder} were made for {self.manifest['dataset']!r} with fingerprint "
                f"{self.fingerprint[:12]}, but {dataset} has {fingerprint[:12]}: the data changed, or it is another "
                "dataset. Point to the annotations of this dataset, or annotate it again."
            )

    def _damaged(self, row: int, error: Exception) -> DataError:
        return DataError(
            f"Row {row} of {self.folder} has damaged values: {sentence(str(error))} `pixelvla annotations validate` "
            "names all such rows; write them again."
        )

    def _values(self, row: int, *columns: str) -> list[Any]:
        table, place = self._located(row)
        return [table[column][place].as_py() for column in columns]

    def _located(self, row: int) -> tuple[pa.Table, int]:
        """The file that a row is in, and its place there."""
        file, place = self._index.place(row)
        if file not in self._tables:
            self._tables[file] = self._map(self._files[file])
        return self._tables[file], place

    def _map(self, entry: dict[str, Any]) -> pa.Table:
        """Map the uncompressed copy of a file into memory; without one, verify the file and make it."""
        copy = self._cache / f"{entry['sha256']}.arrow"
        if not copy.exists():
            table = self._verified(entry)
            with atomic_file(copy) as partial, pa.ipc.new_file(partial, SCHEMA) as sink:
                sink.write_table(table)
        with pa.memory_map(str(copy)) as mapped:  # closed, the table keeps the memory and no descriptor
            return pa.ipc.open_file(mapped).read_all()

    def _verified(self, entry: dict[str, Any]) -> pa.Table:
        path = self.folder / entry["path"]
        if not path.is_file() and read_manifest(self.folder)["files"] != self._files:
            raise DataError(
                f"{self.folder} was changed after it was opened, as by `pixelvla review`: {entry['path']} is no longer "
                "part of it. Start again with the annotations as they are now."
            )
        table = read_shard(self.folder, entry)
        check_camera(path, table, self.camera)
        return table

    def _indexed(self) -> Iterator[tuple[Path, pa.Table]]:
        for entry in self._files:
            yield self.folder / entry["path"], read_shard(self.folder, entry, COLUMNS)


def read_shard(folder: Path, entry: dict[str, Any], columns: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Read one file of a sidecar, or some of its columns, after comparing it with its manifest entry.

    Raises:
        DataError: the file is missing, has another size or checksum, is no Parquet, or has other columns.
    """
    path = Path(folder) / entry["path"]
    if not path.is_file():
        raise DataError(f"{path} is missing, though the manifest lists it. Copy the whole folder, or annotate again.")
    content = path.read_bytes()  # what is verified is what is read, whatever becomes of the file meanwhile
    if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise DataError(
            f"{path} is damaged: it has {len(content)} bytes and another checksum than the manifest says "
            f"({entry['bytes']} bytes). Copy it again, or remove the folder and annotate again."
        )
    return parse(content, path, SCHEMA, columns)


def read_tables(folder: Path, manifest: Mapping[str, Any], columns: Sequence[str] = SCHEMA.names) -> Iterator[Shard]:
    """Read all files of a sidecar, one after the other, as :func:`read_shard` does.

    Raises:
        DataError: one of them is damaged, or has rows of another camera than the manifest.
    """
    for entry in manifest["files"]:
        table = read_shard(folder, entry, [*dict.fromkeys([*columns, "camera"])])
        check_camera(Path(folder) / entry["path"], table, manifest["camera"])
        yield entry, table.select(columns)


def check_camera(path: Path, table: pa.Table, camera: str) -> None:
    """Refuse rows of another camera than the sidecar's."""
    if other := sorted({*table["camera"].unique().to_pylist()} - {camera}):
        raise DataError(
            f"{path} has rows of camera {', '.join(map(repr, other))}, the manifest says {camera!r}. A sidecar is "
            "about one camera; write one for each."
        )
