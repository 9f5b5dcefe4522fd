"""Calls of a model in batches: as many items at once as memory allows, and decoding ahead while the model works."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import batched
from typing import cast

from pixelvla_core.errors import UserError

AHEAD = 2
"""Items that are prepared while one is worked on."""


def in_batches[T, R](call: Callable[[Sequence[T]], Sequence[R]], items: Iterable[T], size: int) -> Iterator[R]:
    """Yield a model's result for each item, in order; a batch that does not fit into memory is halved.

    Raises:
        UserError: not even one item fits.
    """
    for batch in batched(items, size):
        yield from _halving(call, batch)


def _halving[T, R](call: Callable[[Sequence[T]], Sequence[R]], batch: Sequence[T]) -> list[R]:
    if len(batch) == 1:
        return list(in_memory(lambda: call(batch)))
    try:
        return list(call(batch))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    half = len(batch) // 2
    return [*_halving(call, batch[:half]), *_halving(call, batch[half:])]


def in_memory[R](call: Callable[[], R], advice: str = "") -> R:
    """Return what a call of a model gives that cannot be halved; where memory fails, free what can be, and try again.

    Raises:
        UserError: it does not fit; says what to do, beginning with ``advice``.
    """
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release()
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"A model's call does not fit into memory ({str(error).strip().partition(chr(10))[0] or 'out of memory'}). "
            f"{advice}Take a smaller model, or let fewer programs share the memory (runner.options.workers), and run "
            "the command again; finished tasks stay."
        ) from error


def release() -> None:
    """Give back what is held without being used, on this machine and on the accelerator."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.accelerator.is_available():
        torch.accelerator.empty_cache()


_WORDS = ("out of memory", "allocate memory", "alloc_failed", "insufficient memory")
"""In the messages of torch's allocators, cuBLAS and OpenCV, which raise errors of no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model's call failed for lack of memory, of the machine or of the accelerator."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(word in str(error).lower() for word in _WORDS)


_END = object()


def ahead[T](items: Iterable[T]) -> Generator[T]:
    """Yield items that a thread prepares while the caller works on the ones before; what it raises is raised here."""
    source, reader = iter(items), _reader(os.getpid())
    coming: deque[Future[T | object]] = deque(reader.submit(next, source, _END) for _ in range(AHEAD))
    try:
        while (item := coming.popleft().result()) is not _END:
            coming.append(reader.submit(next, source, _END))
            yield cast(T, item)
    finally:
        for each in coming:
            each.cancel()


@cache
def _reader(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that prepares; of several, each would keep memory of its own for images."""
    return ThreadPoolExecutor(1, f"reader-{process}")
