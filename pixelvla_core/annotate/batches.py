"""Calls of a model in batches: as many items at once as memory allows, and decoding ahead while the model works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched

AHEAD = 2
"""Items that are prepared while one is worked on."""


def in_batches[T, R](call: Callable[[Sequence[T]], Sequence[R]], items: Iterable[T], size: int) -> Iterator[R]:
    """Yield a model's result for each item, in order; a batch that does not fit into memory is halved.

    Raises:
        MemoryError, torch.OutOfMemoryError: not even one item fits.
    """
    for batch in batched(items, size):
        yield from _halving(call, batch)


def _halving[T, R](call: Callable[[Sequence[T]], Sequence[R]], batch: Sequence[T]) -> list[R]:
    try:
        return list(call(batch))
    except Exception as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
    half = len(batch) // 2
    return [*_halving(call, batch[:half]), *_halving(call, batch[half:])]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model's call failed for lack of memory, of the machine or of the accelerator."""
    return isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "CUDAOutOfMemoryError")


_END = object()


def ahead[T](items: Iterable[T]) -> Iterator[T]:
    """Yield items that a thread prepares while the caller works on the ones before; what it raises is raised here."""
    ready: queue.Queue = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(what: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(what, timeout=0.1)
            except queue.Full:
                continue

    def prepare() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
