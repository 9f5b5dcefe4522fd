"""One annotation in a process of its own, with a profile of where its time goes; see ``bench.annotate``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.timing import peak_mib

WATCHED = {
    "decoding": ["pixelvla_lerobot.video:Videos.frames"],
    "models": [
        f"bench.annotate_parts:Free.{name}" for name in ("targets", "detect", "segment", "find", "start", "step")
    ],
    "prompts": [
        f"pixelvla_core.annotate.steps.masks:{name}" for name in ("Inner", "derive_point", "derive_line", "extent")
    ],
    "run lengths": ["pixelvla_core.annotations.rle:Rle.encode"],
    "writing": [
        "pixelvla_core.annotate.pipeline:Pipeline.keep",
        "pixelvla_core.annotations.writer:SidecarWriter.finish",
        "pixelvla_core.annotate.run:contact_sheet",
    ],
    "reading artefacts": ["pixelvla_core.annotate.workspace:Workspace.read"],
    "opening the dataset": ["pixelvla_core.annotate.work:Work.__init__"],
}
"""What is told apart, each without what it calls of the others."""
IMPORTED = ("av", "cv2", "pyarrow.dataset", "pixelvla_lerobot.recording")
"""Imported before the clock starts, as everything that the command imports at once."""


class Profile:
    """Processor seconds of the watched functions, thread by thread, and when each was at work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._stack = threading.local()

    def watch(self, name: str, where: str) -> None:
        """Replace a function by one that is timed."""
        module, _, path = where.partition(":")
        holder: Any = __import__(module, fromlist=["_"])
        *outer, last = path.split(".")
        for each in outer:
            holder = getattr(holder, each)
        is_class = isinstance(holder.__dict__[last], classmethod)
        called = getattr(holder, last)
        setattr(holder, last, staticmethod(self._timed(name, called)) if is_class else self._timed(name, called))

    def _timed(self, name: str, called: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            with self._span(name):
                return called(*args, **options)

        return timed

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        inner = self._stack.__dict__.setdefault("inner", [])
        inner.append(0.0)
        begun, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            taken = time.thread_time() - busy
            self.seconds[name] += taken - inner.pop()
            self.spans[name].append((begun, time.perf_counter()))
            if inner:
                inner[-1] += taken


def together(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> float:
    """Return which share of the time in ``first`` something of ``second`` was at work as well."""
    edges = [(at, step) for begin, end in second for at, step in ((begin, 1), (end, -1))]
    marks = [(at, 2 * step) for begin, end in first for at, step in ((begin, 1), (end, -1))]
    both = total = last = 0.0
    ours = theirs = 0
    for at, step in sorted([*edges, *marks]):
        if ours:
            total += at - last
            both += at - last if theirs else 0.0
        ours, theirs, last = (ours + step // 2, theirs, at) if abs(step) == 2 else (ours, theirs + step, at)
    return both / total if total else 0.0


def run(dataset: str, out: Path, arguments: list[str], watch: bool) -> dict[str, Any]:
    """Annotate and return seconds, processor seconds, peak MiB and the profile."""
    from pixelvla_core.annotate.run import annotate
    from pixelvla_core.plugins import PluginManager

    for module in IMPORTED:
        import_module(module)
    registry, profile = PluginManager.load().registry, Profile()
    for name, places in WATCHED.items() if watch else ():
        for where in places:
            profile.watch(name, where)
    begun, busy = time.perf_counter(), time.process_time()
    annotate(dataset, out, arguments, registry)
    seconds, used = time.perf_counter() - begun, time.process_time() - busy
    return {
        "seconds": seconds,
        "processor": used,
        "peak": peak_mib(),
        "parts": dict(profile.seconds) | {"other": used - sum(profile.seconds.values())},
        "decoding": together([(begun, begun + seconds)], profile.spans["decoding"]),
        "overlap": together(profile.spans["writing"] + profile.spans["models"], profile.spans["decoding"]),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(run(given["dataset"], Path(given["out"]), given["arguments"], given["watch"])))
