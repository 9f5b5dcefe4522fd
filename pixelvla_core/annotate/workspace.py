"""Where the artefacts of the steps lie: one Parquet file for each task, whole or not at all.

A file says which settings made it. One that other settings made counts as missing, so a changed recipe repeats exactly
the steps that it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.files import atomic_file

STEPS = "steps"
_DIGEST = b"pixelvla_step"
_GROUP = 4096
"""Rows that are read together where only some episodes are wanted."""


class Workspace:
    """The artefacts of one annotation.

    Args:
        folder: the sidecar's folder; artefacts lie in ``steps/`` within it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def steps(self) -> Path:
        """The folder of all artefacts."""
        return self.folder / STEPS

    def path(self, step: str, key: int) -> Path:
        """Where a task's artefact is, or will be."""
        return self.steps / step / f"{key:06d}.parquet"

    def is_done(self, step: str, key: int, digest: str) -> bool:
        """Whether a task's artefact is there, sound and made by the same settings."""
        try:
            metadata = pq.read_schema(self.path(step, key)).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return metadata.get(_DIGEST) == digest.encode()

    def write(self, step: str, key: int, digest: str, table: pa.Table) -> None:
        """Write a task's artefact."""
        path = self.path(step, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            pq.write_table(
                table.replace_schema_metadata({_DIGEST: digest.encode()}),
                partial,
                compression="zstd",
                row_group_size=_GROUP,
            )

    def read(self, step: str, key: int, first: int | None = None, last: int | None = None) -> list[dict[str, Any]]:
        """Return the rows of one task's artefact; of episodes ``first`` to ``last`` only, if they are given."""
        wanted = [("episode", ">=", first), ("episode", "<=", last)] if first is not None else None
        return pq.read_table(self.path(step, key), filters=wanted).to_pylist()

    def read_all(self, step: str, keys: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the rows of several tasks, one file in memory at a time."""
        for key in keys:
            yield from self.read(step, key)
