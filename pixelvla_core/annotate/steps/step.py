"""What a step is: tasks that each turn artefacts on disk into one more artefact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from pixelvla_core.annotate.work import Work

MASK = [
    pa.field("mask_height", pa.int32()),
    pa.field("mask_width", pa.int32()),
    pa.field("mask_counts", pa.binary()),
]
"""Columns that hold a mask in every artefact."""


@dataclass(frozen=True)
class Product:
    """What a task made, not yet written.

    Attributes:
        rows: of the artefact.
        before: writes what must be on disk before the artefact says so.
    """

    rows: list[dict[str, Any]]
    before: Callable[[], None] = lambda: None


class Step:
    """One step.

    Attributes:
        name: of its folder below ``steps/``.
        title: what it does, for people.
        unit: what the rows of its artefact are, for people.
        after: the steps whose artefacts it reads.
        schema: of its artefact.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = "episodes"
    after: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[pa.Schema]

    def __init__(self, work: Work) -> None:
        self.work = work

    def facts(self) -> dict[str, Any]:
        """What decides the artefacts, besides those that the step reads; plain data."""
        return {}

    def tasks(self) -> Sequence[int]:
        """The tasks; asked when the steps before are done. By default one for each shard of episodes."""
        return range(len(self.work.shards))

    def run(self, key: int) -> Product:
        """Do one task; the same task always gives the same rows."""
        raise NotImplementedError
