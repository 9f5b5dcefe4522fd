"""Changing a finished sidecar, one episode at a time, so that whoever reads it meanwhile sees the old or the new one.

A changed shard gets a new name, made from its content; the manifest, renamed last, is what makes it count. A process
that is killed before that leaves the old sidecar and a file that nobody lists, which the next change removes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.episodes import EPISODES, EpisodeNote, file_of, replace_note
from pixelvla_core.annotations.reader import read_manifest, read_shard
from pixelvla_core.annotations.schema import MANIFEST, STATUSES, Annotation, to_table
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file, write_text


def shard_of(manifest: Mapping[str, Any], episode: int) -> dict[str, Any]:
    """Return the manifest's entry of the file that holds an episode.

    Raises:
        DataError: no file does.
    """
    for entry in manifest["files"]:
        first, last = entry.get("episodes", (0, -1))
        if first <= episode <= last:
            return entry
    raise DataError(f"No file of this sidecar is about episode {episode}; its manifest lists the ranges of all files.")


def rows_of_episode(table: pa.Table, episode: int) -> pa.Table:
    """Return the rows of one episode of a shard."""
    return table.filter(pa.array(table["episode"].to_numpy() == episode))


def replace_rows(
    folder: Path,
    episode: int,
    rows: Iterable[Annotation],
    note: EpisodeNote | None = None,
    marks: Mapping[str, Any] | None = None,
) -> None:
    """Replace everything that a sidecar says of one episode.

    Args:
        folder: the sidecar; only one process changes it at a time (hold ``pixelvla_core.files.locked``).
        episode: index of the episode.
        rows: all its rows, in any order; none takes it out.
        note: what became of it; left out, or in a sidecar that does not say, it is not changed.
        marks: keys that the manifest gets with the change, such as how far a log is applied.

    Raises:
        DataError: the sidecar is damaged, no file is about the episode, or a row is about something else.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    entry = shard_of(manifest, episode)
    ordered = _checked(episode, manifest["camera"], rows)
    table = read_shard(folder, entry)
    merged = pa.concat_tables(
        [
            table.filter(pa.array(table["episode"].to_numpy() < episode)),
            to_table(ordered),
            table.filter(pa.array(table["episode"].to_numpy() > episode)),
        ]
    )
    old = entry["path"]
    entry.update(_write(folder, old, merged, pq.read_schema(folder / old).metadata))
    manifest["counts"] = _counts(manifest["counts"], table, merged)
    if note is not None:
        _note(folder, manifest, replace(note, episode=episode))
    write_text(folder / MANIFEST, json.dumps({**manifest, **(marks or {})}, indent=1, sort_keys=True) + "\n")
    _remove_unlisted(folder, old, manifest)


def _checked(episode: int, camera: str, rows: Iterable[Annotation]) -> list[Annotation]:
    ordered = sorted(rows, key=lambda row: row.key)
    for row in ordered:
        if row.episode != episode or row.camera != camera or not row.in_bounds:
            raise DataError(
                f"A row is about (episode, frame, instance) {row.key}, camera {row.camera!r}; expected episode "
                f"{episode} and camera {camera!r}."
            )
    if len({row.key for row in ordered}) < len(ordered):
        raise DataError(f"Two rows of episode {episode} are about one frame and instance; give each its own instance.")
    return ordered


def _write(folder: Path, old: str, table: pa.Table, metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Write a shard under a name made from its content, and return what the manifest says of it."""
    kept = {key: value for key, value in (metadata or {}).items() if key.startswith(b"pixelvla")}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(kept), sink, compression="zstd", write_page_checksum=True)
    content = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    path = f"{_stem(old)}.{digest[:12]}.parquet"
    with atomic_file(folder / path) as partial:
        partial.write_bytes(content)
    return {"path": path, "sha256": digest, "bytes": len(content), "rows": table.num_rows}


def _stem(path: str) -> str:
    """The path of a shard without what follows the first dot of its name."""
    above, _, name = path.rpartition("/")
    return f"{above}/{name.partition('.')[0]}".removeprefix("/")


def _counts(stated: Mapping[str, int], before: pa.Table, after: pa.Table) -> dict[str, int]:
    """The manifest's counts after a shard changed."""
    changed = Counter({key: count for key, count in stated.items() if key in STATUSES})
    changed.subtract(before["status"].to_pylist())
    changed.update(after["status"].to_pylist())
    statuses = {key: count for key, count in sorted(changed.items()) if count > 0}
    return {"episodes": stated["episodes"], "rows": sum(statuses.values()), **statuses}


def _note(folder: Path, manifest: dict[str, Any], note: EpisodeNote) -> None:
    """Replace an episode's note where the sidecar has notes at all."""
    if "episodes" in manifest:
        manifest["episodes"] = replace_note(folder, manifest, note)


def _remove_unlisted(folder: Path, old: str, manifest: Mapping[str, Any]) -> None:
    """Remove the former versions of a shard and of the notes."""
    listed = {folder / entry["path"] for entry in manifest["files"]} | {folder / file_of(manifest)}
    for stem in (folder / _stem(old), folder / _stem(EPISODES)):
        for path in stem.parent.glob(f"{stem.name}.*parquet"):
            if path not in listed:
                path.unlink(missing_ok=True)
