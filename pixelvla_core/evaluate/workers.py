"""A worker process: one model, several episodes in lockstep, one batched forward pass for all of them.

The parent sends its environment variables, the setup and then lists of jobs, and the worker sends ``(kind, content)``
messages back: ("ready", None), ("alive", None), ("done", Record), ("failed", (Job, reason)),
("refused", text of a UserError), ("crashed", traceback).
"""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.component import Component
from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.episode import Rollout
from pixelvla_core.evaluate.films import Film
from pixelvla_core.evaluate.policy import Policy
from pixelvla_core.evaluate.records import Job
from pixelvla_core.processes import serve_parent

if TYPE_CHECKING:
    import gymnasium as gym

Built = tuple[Component, Any]
"""A part and its options."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a worker needs to start; crosses to the worker's process.

    Attributes:
        policy: Loads the policy, in the worker.
        environment, segmenter, tracker: Parts with their options; no segmenter means the environment's exact mask.
        execute: Steps of each chunk to execute; None for all.
        slots: Episodes in lockstep.
        films: Episodes of each task, split and prompt whose frames are kept under ``out``.
        step_timeout: Seconds that one start, decision or chunk of actions may take; then the worker is taken to hang.
        modules: What is imported once for all workers; no module that opens a display or a device as it is imported.
    """

    policy: Callable[[], Policy]
    environment: Built
    segmenter: Built | None
    tracker: Built
    out: Path
    execute: int | None = None
    slots: int = 16
    films: int = 0
    step_timeout: float = 120.0
    modules: tuple[str, ...] = ()


@dataclass
class Slot:
    """A place for one episode; keeps its environment for the next one if task and split are the same."""

    place: tuple[str, str] | None = None
    env: gym.Env | None = None
    rollout: Rollout | None = None

    def open(self, suite: Any, job: Job) -> gym.Env:
        """Return the environment for a job."""
        if self.env is None or self.place != (job.task, job.split):
            self.drop()
            self.env, self.place = suite.make(job.task, job.split), (job.task, job.split)
        return self.env

    def drop(self) -> None:
        """Give up the environment and the episode in it."""
        env, self.env, self.rollout = self.env, None, None
        if env is not None:
            with suppress(Exception):  # A broken environment may not even close.
                env.close()


@dataclass
class Worker:
    """Runs what it is sent until the parent hangs up."""

    setup: Setup
    connection: Connection
    pending: deque[Job] = field(default_factory=deque)

    def __post_init__(self) -> None:
        build, options = self.setup.environment
        self.suite = build.build(options)
        self.segmenter = self._build(self.setup.segmenter)
        self.policy = self.setup.policy()
        self.slots = [Slot() for _ in range(self.setup.slots)]
        self.told = time.monotonic()

    def run(self) -> None:
        """Serve until the parent hangs up."""
        self.connection.send(("ready", None))
        while True:
            self._receive()
            for slot in self.slots:
                if slot.rollout is None and self.pending:
                    self._start(slot, self.pending.popleft())
            self._round()

    def _receive(self) -> None:
        """Take what the parent has sent; wait for it if there is nothing to do."""
        idle = not self.pending and not any(slot.rollout for slot in self.slots)
        while idle or self.connection.poll():
            self.pending.extend(self.connection.recv())
            idle = False

    def _start(self, slot: Slot, job: Job) -> None:
        with self._guard(slot, job):
            slot.rollout = Rollout(
                job=job,
                env=slot.open(self.suite, job),
                camera=self.policy.camera,
                segmenter=self.segmenter,
                tracker=self._build(self.setup.tracker),
                film=self._film(job),
            )
        self._alive()

    def _round(self) -> None:
        """All running episodes look, the policy answers all at once, all act."""
        samples = []
        for slot, rollout in self._running():
            with self._guard(slot, rollout.job):
                samples.append(rollout.look())
            self._alive()
        running = self._running()
        if not running:
            return
        start = time.perf_counter()
        actions_BHA = self.policy.act(samples)[:, : self.setup.execute]
        share = (time.perf_counter() - start) / len(running)
        self._alive()
        for (slot, rollout), actions_HA in zip(running, actions_BHA, strict=True):
            rollout.seconds["policy"] += share
            self._act(slot, rollout, actions_HA)

    def _running(self) -> list[tuple[Slot, Rollout]]:
        return [(slot, slot.rollout) for slot in self.slots if slot.rollout]

    def _act(self, slot: Slot, rollout: Rollout, actions_HA: np.ndarray) -> None:
        record = None
        with self._guard(slot, rollout.job):
            rollout.act(actions_HA)
            record = rollout.record() if rollout.done else None
        if record:
            slot.rollout = None
            self.connection.send(("done", record))
        self._alive()

    def _alive(self) -> None:
        """Give the parent a sign of life, rarely enough to cost nothing."""
        now = time.monotonic()
        if now - self.told > self.setup.step_timeout / 20:
            self.connection.send(("alive", None))
            self.told = now

    @contextmanager
    def _guard(self, slot: Slot, job: Job) -> Iterator[None]:
        """If something raises within, only this episode is lost, and its environment is made anew."""
        try:
            yield
        except Exception as error:
            slot.drop()
            self.connection.send(("failed", (job, f"{type(error).__name__}: {error}")))

    def _film(self, job: Job) -> Film | None:
        if job.episode >= self.setup.films:
            return None
        return Film(self.setup.out, f"films/{job.task}-{job.split}-{job.prompt.replace('+', '_')}-{job.seed}")

    @staticmethod
    def _build(part: Built | None) -> Any:
        return None if part is None else part[0].build(part[1])


def main(connection: Connection) -> None:
    """Entry point of the process."""
    serve_parent()
    try:
        Worker(_setup(connection), connection).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        connection.send(("refused", str(error)))
    except Exception:
        traceback.print_exc()
        connection.send(("crashed", traceback.format_exc()))


def _setup(connection: Connection) -> Setup:
    """Take over the parent's environment, before anything is imported or built that might read it."""
    environment = connection.recv()
    os.environ.clear()
    os.environ.update(environment)
    return connection.recv()
