"""The runner ``ray``: the tasks of a step on many workers, each of which builds its own pipeline once.

A task writes its artefact itself, whole or not at all, and always the same bytes; so it does not matter who does it,
and a task whose worker died is simply done again. All workers must see the dataset and the sidecar's folder under the
same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pixelvla_core.annotate.pipeline import Done, Pipeline, Tally
from pixelvla_core.annotate.work import Job
from pixelvla_core.errors import PixelVLAError, UserError
from pixelvla_ray.config import RayConfig


class Worker:
    """Does tasks in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.pipeline = Pipeline(job)

    def do(self, step: str, key: int) -> Tally:
        return self.pipeline.do(step, key)


class RayRunner:
    """Hands out tasks as workers become free.

    Raises:
        UserError: there is no cluster at the address, or it cannot give a single worker what it is to reserve.
    """

    def __init__(self, options: RayConfig | None = None) -> None:
        self.options = options or RayConfig()
        self._workers: list[Any] = []

    def run(self, pipeline: Pipeline, step: str, keys: Sequence[int], done: Done) -> None:
        if not keys:
            return
        self._start(pipeline.work.job, len(keys))
        todo = list(reversed(keys))
        busy: dict[Any, tuple[int, int]] = {}
        tries = dict.fromkeys(keys, 0)
        idle = list(range(len(self._workers)))
        while todo or busy:
            while todo and idle:
                place, key = idle.pop(), todo.pop()
                busy[self._workers[place].do.remote(step, key)] = place, key
            finished, _ = ray.wait(list(busy), num_returns=1)
            place, key = busy.pop(finished[0])
            if (tally := self._result(finished[0], key, tries)) is None:
                self._workers[place] = self._worker(pipeline.work.job)
                todo.append(key)
            else:
                done(key, tally)
            idle.append(place)

    def _result(self, reference: Any, key: int, tries: dict[int, int]) -> Tally | None:
        """Return what a task did; None if its worker died and the task is to be done again."""
        try:
            return ray.get(reference)
        except RayTaskError as error:
            # Ray's own mixture of the two kinds would hide what a full disk is told by.
            known = isinstance(error.cause, PixelVLAError | OSError)
            raise (error.cause if known else error.as_instanceof_cause()) from error
        except RayActorError as error:
            tries[key] += 1
            if tries[key] > self.options.retries:
                raise UserError(
                    f"The worker that did task {key} died {tries[key]} times ({str(error).splitlines()[0]}). Give "
                    "workers more memory or take fewer of them (runner.options.workers), then run the command again; "
                    "finished tasks stay."
                ) from error
            return None

    def _start(self, job: Job, tasks: int) -> None:
        if not ray.is_initialized():
            self._connect()
        while len(self._workers) < min(self.options.workers, tasks):
            self._workers.append(self._worker(job))

    def _connect(self) -> None:
        here = {"num_cpus": max(os.cpu_count() or 1, int(self.options.workers * self.options.cpus))}
        where: dict[str, Any] = {"address": self.options.address} if self.options.address else here
        try:
            ray.init(**where, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"Ray cannot be reached at {self.options.address or 'this machine'}: {str(error).splitlines()[0]} "
                "Start it with `ray start --head`, or leave runner.options.address out to use this machine alone."
            ) from error

    def _worker(self, job: Job) -> Any:
        threads = str(max(1, int(self.options.cpus)))
        environment = {"env_vars": {"OMP_NUM_THREADS": threads}}
        actor = ray.remote(num_cpus=self.options.cpus, num_gpus=self.options.gpus, runtime_env=environment)(Worker)
        return actor.remote(job)
