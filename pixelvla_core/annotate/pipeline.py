"""The pipeline: which tasks there are, which of them are still to do, and what they come to.

A task is a pure function of artefacts on disk and of the recipe, and its own artefact appears whole or not at all. So a
run that was killed goes on where it was, any runner may do the tasks, and the bytes are the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import pyarrow as pa

from pixelvla_core.annotate.steps import STEPS, Product, Step
from pixelvla_core.annotate.work import Job, Work, digest_of
from pixelvla_core.plugins import Registry


@dataclass(frozen=True)
class Tally:
    """What a task did.

    Attributes:
        items: rows of its artefact: episodes, or instructions.
        frames: images that it looked at.
        reasons: reason -> how many were discarded for it; "" for those that were not.
    """

    items: int = 0
    frames: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


Done = Callable[[int, Tally], None]
"""Told about each finished task."""


class Runner(Protocol):
    """Does tasks, in any order and anywhere; built as ``target(options)``."""

    def run(self, pipeline: Pipeline, step: str, keys: Sequence[int], done: Done) -> None:
        """Do tasks of one step, each by ``pipeline.do(step, key)`` or by that of ``Pipeline(pipeline.work.job)``."""
        ...


class Local:
    """One task after the other, in this process; what a task made is written while the next one is at work."""

    def __init__(self, options: Any = None) -> None:
        pass

    def run(self, pipeline: Pipeline, step: str, keys: Sequence[int], done: Done) -> None:
        with ThreadPoolExecutor(1) as writer:
            writing: deque[tuple[int, Future[Tally]]] = deque()
            for key in keys:
                made = pipeline.make(step, key)
                _finish(writing, done)
                writing.append((key, writer.submit(pipeline.keep, step, key, made)))
            _finish(writing, done)


def _finish(writing: deque[tuple[int, Future[Tally]]], done: Done) -> None:
    while writing:
        key, tally = writing.popleft()
        done(key, tally.result())


class Pipeline:
    """The steps of one annotation.

    Raises:
        UserError: a part, a weight or the dataset is missing; before any work.
    """

    def __init__(self, job: Job, registry: Registry | None = None) -> None:
        self.work = Work(job, registry)
        self.steps: dict[str, Step] = {step.name: step(self.work) for step in STEPS}

    @cached_property
    def digests(self) -> dict[str, str]:
        """Step -> hash of all that decides its artefacts."""
        found: dict[str, str] = {}
        for name, step in self.steps.items():
            found[name] = digest_of([name, step.facts(), [found[other] for other in step.after]])
        return found

    def missing(self, step: str) -> list[int]:
        """Return the tasks of a step that are still to do; the steps before it must be done."""
        digest = self.digests[step]
        return [key for key in self.steps[step].tasks() if not self.work.workspace.is_done(step, key, digest)]

    def do(self, step: str, key: int) -> Tally:
        """Do one task."""
        return self.keep(step, key, self.make(step, key))

    def make(self, step: str, key: int) -> Product:
        """Do one task, but for writing."""
        return self.steps[step].run(key)

    def keep(self, step: str, key: int, made: Product) -> Tally:
        """Write what a task made; another thread may do so."""
        table = pa.Table.from_pylist(made.rows, self.steps[step].schema)
        made.before()
        self.work.workspace.write(step, key, self.digests[step], table)
        return self.tally(step, made.rows)

    def tally(self, step: str, rows: Sequence[dict[str, Any]]) -> Tally:
        """Count what a task did."""
        reasons = Counter(row["reason"].partition(":")[0] for row in rows if "reason" in row)
        return Tally(len(rows), self._frames(step, rows), reasons)

    def _frames(self, step: str, rows: Sequence[dict[str, Any]]) -> int:
        if step == "masks":
            follows = self.work.recipe.tracker is not None
            lengths = self.work.recording.lengths
            return sum(lengths[row["episode"]] if follows else 1 for row in rows if row["kept"])
        each = {"closing": 1, "grippers": 1 + self.work.recipe.video.context, "objects": 1}
        return each.get(step, 0) * len(rows)
