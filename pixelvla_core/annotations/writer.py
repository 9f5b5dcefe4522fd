"""Writing a sidecar, shard by shard: each appears whole or not at all, and a second run goes on where one stopped.

The bytes depend on the rows and the header alone, not on how often the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.episodes import EpisodeNote, write_episodes
from pixelvla_core.annotations.schema import FORMAT, MANIFEST, VERSION, Annotation, Header, to_table
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file, check_target, sha256, write_text

_DIGEST = b"pixelvla_header"
ROWS = "rows"


class SidecarWriter:
    """Writes the sidecar of one dataset and camera.

    Args:
        folder: where the sidecar goes; may hold shards of an interrupted run with the same header.
        header: what the sidecar is about.
        episodes: all episodes to annotate.
        episodes_per_shard: how many go into one file.

    Raises:
        DataError: the folder holds a finished sidecar, or shards that another header made.
        UserError: it holds something else.
    """

    def __init__(self, folder: Path, header: Header, episodes: Iterable[int], episodes_per_shard: int = 100) -> None:
        self.folder, self.header = Path(folder), header
        if (self.folder / MANIFEST).exists():
            raise DataError(f"{self.folder} already holds a finished sidecar. Remove it, or write to another folder.")
        check_target(self.folder, "a sidecar", ours=_begun(self.folder))
        self._shards = list(_split(sorted(set(episodes)), episodes_per_shard))
        self._digest = hashlib.sha256(json.dumps(header.to_json(), sort_keys=True).encode()).hexdigest()

    def missing(self) -> list[tuple[int, ...]]:
        """Return the shards still to write, each as its episodes."""
        return [shard for shard in self._shards if not self._is_written(self._path(shard))]

    def write(self, shard: Sequence[int], rows: Iterable[Annotation]) -> None:
        """Write the rows of one shard, in any order.

        Raises:
            DataError: a row is of another shard or camera, or two rows are about the same object and frame.
        """
        ordered = sorted(rows, key=lambda row: row.key)
        self._check(set(shard), ordered)
        table = to_table(ordered).replace_schema_metadata({_DIGEST: self._digest.encode()})
        path = self._path(tuple(shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    def finish(self, episodes: Iterable[EpisodeNote] = ()) -> Path:
        """Write the manifest and return the folder.

        Args:
            episodes: what became of each episode; without any, the sidecar does not say.

        Raises:
            DataError: shards are missing.
        """
        if missing := self.missing():
            raise DataError(
                f"{self.folder} lacks {len(missing)} of {len(self._shards)} shards, the first with episodes "
                f"{missing[0][0]} to {missing[0][-1]}. Run the annotation again; it goes on where it stopped."
            )
        files, counts = [], Counter[str]()
        for shard in self._shards:
            path = self._path(shard)
            status = pq.read_table(path, columns=["status"])["status"].to_pylist()
            counts.update(status)
            files.append(self._entry(path, shard, len(status)))
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **self.header.to_json(),
            "counts": {"episodes": sum(map(len, self._shards)), "rows": counts.total(), **dict(sorted(counts.items()))},
            "files": files,
        }
        if notes := list(episodes):
            manifest["episodes"] = write_episodes(self.folder, notes)
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        return self.folder

    def _entry(self, path: Path, shard: Sequence[int], rows: int) -> dict:
        return {
            "path": path.relative_to(self.folder).as_posix(),
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
            "rows": rows,
            "episodes": [shard[0], shard[-1]],
        }

    def _path(self, shard: Sequence[int]) -> Path:
        return self.folder / ROWS / f"episodes-{shard[0]:06d}-{shard[-1]:06d}.parquet"

    def _is_written(self, path: Path) -> bool:
        if not path.exists():
            return False
        try:
            metadata = pq.read_table(path, page_checksum_verification=True).schema.metadata or {}
        except (OSError, pa.ArrowException):
            return False
        if metadata.get(_DIGEST) != self._digest.encode():
            raise DataError(
                f"{path} was written for another dataset, camera or set of tools. "
                f"Remove {self.folder}, or write to another folder."
            )
        return True

    def _check(self, episodes: set[int], rows: list[Annotation]) -> None:
        for row, previous in zip(rows, [None, *rows], strict=False):
            if row.episode not in episodes or row.camera != self.header.camera:
                raise DataError(
                    f"A row is about episode {row.episode}, camera {row.camera!r}; this shard takes episodes "
                    f"{min(episodes)} to {max(episodes)} of camera {self.header.camera!r}."
                )
            if not row.in_bounds:
                raise DataError(f"A row is about (episode, frame, instance) {row.key}, which a sidecar cannot hold.")
            if previous and row.key == previous.key:
                raise DataError(f"Two rows are about (episode, frame, instance) {row.key}; give each its own instance.")


def _begun(folder: Path) -> bool:
    """Whether a folder holds shards of an interrupted run, or what the annotation's steps left."""
    return (
        (folder / "steps").is_dir() or any((folder / ROWS).glob("*.parquet")) or any((folder / ROWS).glob(".*.partial"))
    )


def _split(episodes: list[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(episodes), size):
        yield tuple(episodes[start : start + size])
