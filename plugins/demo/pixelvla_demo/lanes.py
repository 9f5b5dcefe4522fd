"""Several ``pixelvla`` commands side by side, each in a process of its own with its share of the cores.

A small model learns faster in two processes of one thread each than in one after the other of two threads.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import click

from pixelvla_core.api import UserError, serve_parent

Command = tuple[str, ...]


def run_side_by_side(
    commands: Sequence[tuple[str, Command]], *, at_once: int, finished: Callable[[Command, float], None]
) -> None:
    """Run commands, ``at_once`` at a time and the first ones first, and pass on what they print, line by line.

    Args:
        commands: a name that begins each line of a command's output, and its words behind ``pixelvla``.
        finished: called, never by two at a time, with each command that succeeded and the seconds it took.

    Raises:
        UserError: a command failed; the others were asked to stop, as Ctrl-C asks, and have ended.
    """
    lanes = _Lanes(threads=max(1, len(os.sched_getaffinity(0)) // at_once), finished=finished)
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(lanes.run, name, command) for name, command in commands]
        try:
            for future in as_completed(waiting):
                future.result()
        except BaseException:  # a command's failure, Ctrl-C, or a scheduler's SIGTERM
            for future in waiting:
                future.cancel()
            lanes.stop()
            raise


class _Lanes:
    """The processes that run now."""

    def __init__(self, threads: int, finished: Callable[[Command, float], None]) -> None:
        self.threads, self.finished = threads, finished
        self.running: set[BaseProcess] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def run(self, name: str, command: Command) -> None:
        """Run one command to its end."""
        start = time.perf_counter()
        status = self._wait(name, command)
        if status:
            raise UserError(f"`pixelvla {' '.join(command)}` ended with status {status}; what it said stands above.")
        with self.lock:
            self.finished(command, round(time.perf_counter() - start, 1))

    def _wait(self, name: str, command: Command) -> int | None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads of this process half-alive
        reader, writer = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_command, args=(command, self.threads, writer))
        with self.lock:
            if self.stopped:
                return None
            process.start()
            self.running.add(process)
        writer.close()
        with os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace") as lines:
            for line in lines:
                click.echo(f"{name}: {line}", nl=False)
        reader.close()
        process.join()
        self.running.discard(process)
        return process.exitcode

    def stop(self) -> None:
        """Ask what runs to stop: training then saves and ends after the step it is in."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()


def _command(command: Command, threads: int, output: Connection) -> None:
    """In the new process: say everything to ``output`` and leave with the command's exit status."""
    serve_parent()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch is imported
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    sys.stdout = os.fdopen(1, "w", 1, "utf-8", closefd=False)  # line by line, as to a terminal
    from pixelvla_core.api import main

    sys.exit(main(command))
