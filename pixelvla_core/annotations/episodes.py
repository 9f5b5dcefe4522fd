"""What became of each episode of an annotation: kept, or discarded for which reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file

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
        DataError: the file is damaged.
    """
    path = Path(folder) / EPISODES
    if not path.is_file():
        return []
    try:
        return [EpisodeNote(**row) for row in pq.read_table(path, schema=EPISODE_SCHEMA).to_pylist()]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged: {error}. Copy the sidecar again, or annotate again.") from error


def discarded(folder: Path) -> dict[int, str]:
    """Return why each discarded episode of a sidecar was discarded; empty if the sidecar does not say.

    Raises:
        DataError: the file is damaged.
    """
    return {note.episode: note.reason for note in read_episodes(folder) if not note.kept}


def write_episodes(folder: Path, notes: Iterable[EpisodeNote]) -> Path:
    """Replace the notes of a sidecar; equal notes give equal bytes."""
    rows = [asdict(note) for note in sorted(notes, key=lambda note: note.episode)]
    path = Path(folder) / EPISODES
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, EPISODE_SCHEMA), partial, compression="zstd")
    return path
