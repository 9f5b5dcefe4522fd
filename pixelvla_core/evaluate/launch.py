"""How a worker process starts: forked from a server that imported what is heavy, or spawned where that cannot be.

Importing a model's libraries takes 10 s of processor time. The server belongs to this process: it takes them once, for
replaced workers and later evaluations too, and ends with this process, however that ends. It keeps the environment
variables it started with, so every worker is told those of now before it builds anything.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess

from pixelvla_core.evaluate import preload, workers
from pixelvla_core.evaluate.workers import Setup

Process = ForkServerProcess | SpawnProcess


class Launcher:
    """Starts workers; one is enough for a process.

    Attributes:
        threads: Numbers of threads in the server's environment, which libraries read as they are imported.
        usable: Whether there is a server, or can be.
    """

    def __init__(self) -> None:
        self.threads: dict[str, str] | None = None
        self.usable = "forkserver" in multiprocessing.get_all_start_methods()

    def start(self, setup: Setup) -> tuple[Process, Connection]:
        """Start a worker and return it with the parent's end of its connection."""
        if self.usable and self.threads in (None, _threads()):
            self.threads = _threads()
            environment = dict(os.environ)
            with suppress(EOFError, ConnectionError), _told(setup.modules):
                return _begin(multiprocessing.get_context("forkserver"), setup, environment)
            self.usable = False  # it ended while it imported
        return _begin(multiprocessing.get_context("spawn"), setup, dict(os.environ))


def _threads() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}


@contextmanager
def _told(modules: tuple[str, ...]) -> Iterator[None]:
    """Tell the server what to import, should it start now, and from where.

    Python would have it look into the working directory first, where a file of the user may have a library's name.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([preload.__name__])
    told = {
        preload.VARIABLE: " ".join((workers.__name__, *modules)),
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _begin(
    context: ForkServerContext | SpawnContext, setup: Setup, environment: dict[str, str]
) -> tuple[Process, Connection]:
    """Start the process, and tell it the environment that it shall have and what it is to do."""
    ours, theirs = context.Pipe()
    with theirs:
        process = context.Process(target=workers.main, args=(theirs,), daemon=True)
        process.start()
    with suppress(OSError):  # If the worker just died, its connection reports the end.
        ours.send(environment)
        ours.send(setup)
    return process, ours


LAUNCHER = Launcher()
"""This process's."""
