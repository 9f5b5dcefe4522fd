"""What became of each episode of an annotation: kept, or discarded for which reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.parquet import parse
from pixelvla_core.annotations.reader import read_manifest
from pixelvla_core.annotations.schema import MANIFEST
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file, sha256

EPISODES = "episodes.parquet"

EPISODE_SCHEMA = pa.schema(
    [
        pa.field("episode", pa.int32(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("close_frame", pa.int32()),
        pa.field("region", pa.list_(pa.float32())),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class EpisodeNote:
    """One episode.

    Attributes:
        episode: Its index in the dataset.
        kept: Whether training uses its annotations.
        reason: Why not, in a few words, perhaps with details after ": "; "" if kept.
        close_frame: The frame on which the gripper first closes, None if it never does.
        region: x0, y0, x1, y1 of the region proposal in [0, 1], None without one.
        instruction: What the robot was told.
        target: The object that the instruction is about, "" if none was found.
        score: Confidence in [0, 1].
    """

    episode: int
    kept: bool
    reason: str = ""
    close_frame: int | None = None
    region: list[float] | None = None
    instruction: str = ""
    target: str = ""
    score: float = 0.0


def read_episodes(folder: Path) -> list[EpisodeNote]:
    """Return the episodes of a sidecar in order; nothing if it does not say (as one made from exact masks).

    Raises:
        DataError: the file is damaged, or is missing though the manifest lists it.
    """
    manifest = read_manifest(folder) if (Path(folder) / MANIFEST).is_file() else {}
    path = Path(folder) / file_of(manifest)
    if path.is_file():
        return [EpisodeNote(**row) for row in parse(path.read_bytes(), path, EPISODE_SCHEMA).to_pylist()]
    if "episodes" in manifest:
        raise DataError(f"{path} is missing, though the manifest lists it. Copy the whole folder, or annotate again.")
    return []


def file_of(manifest: Mapping[str, Any]) -> str:
    """Return the name of the file of notes; an edited sidecar has another than a fresh one."""
    return str(manifest.get("episodes", {}).get("path", EPISODES))


def wrong_file(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Return how the file of notes differs from what the manifest says of it, "" if it does not."""
    entry, path = manifest.get("episodes"), Path(folder) / file_of(manifest)
    if not path.is_file():
        return "missing, though the manifest lists it" if entry else ""
    if not entry:
        return "not in the manifest"
    same = entry["bytes"] == path.stat().st_size and entry["sha256"] == sha256(path)
    return "" if same else "has another checksum than the manifest says"


def discarded(folder: Path) -> dict[int, str]:
    """Return why each discarded episode of a sidecar was discarded; empty if the sidecar does not say.

    Raises:
        DataError: the file is damaged.
    """
    return {note.episode: note.reason for note in read_episodes(folder) if not note.kept}


def write_episodes(folder: Path, notes: Iterable[EpisodeNote], *, beside: bool = False) -> dict[str, Any]:
    """Write the notes of a sidecar, and return what its manifest says of them; equal notes give equal bytes.

    Args:
        folder: the sidecar.
        notes: one of each episode, in any order.
        beside: under a name made from the content, so that a manifest that lists the former file stays true.
    """
    rows = [asdict(note) for note in sorted(notes, key=lambda note: note.episode)]
    return _write(folder, pa.Table.from_pylist(rows, EPISODE_SCHEMA), beside)


def replace_note(folder: Path, manifest: Mapping[str, Any], note: EpisodeNote) -> dict[str, Any]:
    """Write the notes that a manifest lists with another one of one episode, and return what a new manifest says.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / file_of(manifest)
    table = parse(path.read_bytes(), path, EPISODE_SCHEMA)
    episodes = table["episode"].to_numpy()
    row = pa.Table.from_pylist([asdict(note)], EPISODE_SCHEMA)
    before, after = (table.filter(pa.array(kept)) for kept in (episodes < note.episode, episodes > note.episode))
    return _write(folder, pa.concat_tables([before, row, after]), beside=True)


def _write(folder: Path, table: pa.Table, beside: bool) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    path = f"{EPISODES.partition('.')[0]}.{digest[:12]}.parquet" if beside else EPISODES
    with atomic_file(Path(folder) / path) as partial:
        partial.write_bytes(content)
    return {"path": path, "sha256": digest, "bytes": len(content)}
