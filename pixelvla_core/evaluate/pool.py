"""The parent's side of the workers: hands out jobs, collects records, replaces a worker that died or hangs."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from pixelvla_core.errors import PixelVLAError, UserError
from pixelvla_core.evaluate.launch import LAUNCHER, Process
from pixelvla_core.evaluate.records import Job, Record
from pixelvla_core.evaluate.workers import Setup

ATTEMPTS = 2
"""How often an episode is tried before it is recorded as failed."""
GIVE_UP = 6
"""After so many mishaps without a single episode in between, the fault is no episode's: the evaluation stops."""
TICK = 1.0
"""Seconds after which the parent looks for workers that hang."""
GRACE = 5.0
"""Seconds that a worker has to end when it is asked to."""


@dataclass
class Handle:
    """One worker process as the parent sees it.

    Attributes:
        solo: It runs one job alone.
        silent: Seconds for which the parent has waited for any message while the worker had jobs.
        crash: The traceback of what ended it.
    """

    process: Process
    connection: Connection
    ready: bool = False
    solo: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    silent: float = 0.0
    crash: str = ""

    @property
    def busy(self) -> bool:
        """Whether it has something to do that it must show signs of; loading a model may take as long as it takes."""
        return self.ready and bool(self.jobs)

    def send(self, jobs: Sequence[Job]) -> None:
        self.jobs |= {job.key: job for job in jobs}
        with suppress(OSError):  # If the worker just died, its connection reports the end, and its jobs are known.
            self.connection.send(list(jobs))

    def end(self) -> None:
        """Wait for its process to end, and kill it if it does not."""
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Pool:
    """Runs jobs in worker processes.

    A worker that dies, or is killed because it hangs, takes all its running episodes along, and nobody knows whose
    fault it was: each of them is tried once more, alone in a worker, so that an innocent one cannot fall victim twice.

    Args:
        setup: What a worker needs.
        jobs: Episodes to run.
        workers: Number of processes.
    """

    def __init__(self, setup: Setup, jobs: Sequence[Job], workers: int) -> None:
        self.setup = setup
        self.waiting = deque(jobs)
        self.suspects: deque[Job] = deque()
        self.attempts: Counter[str] = Counter()
        self.mishaps = 0
        self.left = len(jobs)
        self.workers = min(workers, len(jobs))
        self.handles: list[Handle] = []

    def run(self) -> Generator[Record]:
        """Yield each record as soon as its episode is over.

        Raises:
            UserError: a worker cannot start because of something the user can mend, or nothing but mishaps happen.
            PixelVLAError: a worker dies before it is ready.
        """
        try:
            for _ in range(self.workers):
                self._launch()
            while self.left:
                for handle in self._reporting():
                    for record in self._hear(handle):
                        self.left -= 1
                        yield record
                for handle in self._hanging():
                    for record in self._kill(handle):
                        self.left -= 1
                        yield record
        finally:
            self._stop()

    def _launch(self) -> None:
        self.handles.append(Handle(*LAUNCHER.start(self.setup)))

    def _reporting(self) -> list[Handle]:
        start = time.monotonic()
        found = wait([handle.connection for handle in self.handles], TICK)
        # Time in which the parent itself stood still, as after Ctrl-Z, is no silence of a worker's.
        waited = min(time.monotonic() - start, TICK)
        for handle in self.handles:
            heard = handle.connection in found or not handle.busy
            handle.silent = 0.0 if heard else handle.silent + waited
        return [handle for handle in self.handles if handle.connection in found]

    def _hanging(self) -> list[Handle]:
        return [handle for handle in self.handles if handle.silent > self.setup.step_timeout]

    def _kill(self, handle: Handle) -> list[Record]:
        handle.process.kill()
        handle.end()
        return self._replace(
            handle,
            f"The worker showed no sign of life for {self.setup.step_timeout:g} s (evaluate.step_timeout) and was "
            "killed: the environment, the model or the segmenter hangs",
        )

    def _hear(self, handle: Handle) -> list[Record]:
        """Take one message, or the end, of a worker and return the records that it settles."""
        try:
            kind, content = handle.connection.recv()
        except (EOFError, OSError):
            return self._bury(handle)
        records = self._settle(handle, kind, content)
        if handle.ready:
            self._feed(handle)
        return records

    def _settle(self, handle: Handle, kind: str, content: Any) -> list[Record]:
        if kind == "refused":
            raise UserError(content)
        if kind == "ready":
            handle.ready = True
        if kind == "crashed":
            handle.crash = content
        if kind == "done":
            self.mishaps = 0
            handle.jobs.pop(content.job.key)
            return [content]
        if kind == "failed":
            job, reason = content
            handle.jobs.pop(job.key)
            self._count(reason)
            return self._again(job, reason)
        return []

    def _bury(self, handle: Handle) -> list[Record]:
        handle.end()
        reason = f"The worker ended with exit code {handle.process.exitcode}"
        reason = f"{reason}: {handle.crash.strip().splitlines()[-1]}" if handle.crash else reason
        if not handle.ready:
            raise PixelVLAError(f"{reason} before it ran an episode.\n{handle.crash}")
        return self._replace(handle, reason)

    def _replace(self, handle: Handle, reason: str) -> list[Record]:
        """Start another worker for one that is gone, and settle what it was running."""
        handle.connection.close()
        self.handles.remove(handle)
        self._count(reason)
        records = [record for job in handle.jobs.values() for record in self._again(job, reason)]
        if self.left > len(records):
            self._launch()
        return records

    def _count(self, reason: str) -> None:
        self.mishaps += 1
        if self.mishaps >= GIVE_UP:
            raise UserError(
                f"{self.mishaps} attempts to run an episode failed one after the other; the last reason: {reason}. "
                f"This is no matter of single episodes: check the model and the environment, for instance with "
                f"--workers 1 --episodes 1. Finished episodes are kept and not repeated."
            )

    def _again(self, job: Job, reason: str) -> list[Record]:
        """Keep a job for its next attempt, or settle it as failed."""
        self.attempts[job.key] += 1
        if self.attempts[job.key] >= ATTEMPTS:
            return [Record(job=job, failure_reason=reason)]
        self.suspects.append(job)
        return []

    def _feed(self, handle: Handle) -> None:
        """Fill a worker's slots, with one job to spare; an idle worker takes a suspect, and nothing beside it."""
        handle.solo = handle.solo and bool(handle.jobs)
        if handle.solo:
            return
        if self.suspects and not handle.jobs:
            handle.solo = True
            handle.send([self.suspects.popleft()])
            return
        room = self.setup.slots + 1 - len(handle.jobs)
        jobs = [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        if jobs:
            handle.send(jobs)

    def _stop(self) -> None:
        for handle in self.handles:
            handle.process.terminate()
            handle.connection.close()
        for handle in self.handles:
            handle.end()
