"""Processes that work for another one and do not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def serve_parent() -> None:
    """In a worker process: leave Ctrl-C to the parent, and end when the parent has ended, however that came about.

    A killed parent cannot end its workers, and a worker that waits for work, or hangs, would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process has a parent to serve"
    parent.join()
    os._exit(1)


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Let SIGTERM, which a scheduler sends, unwind the program as Ctrl-C does, so that it cleans up behind itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
