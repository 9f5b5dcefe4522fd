"""Clocks and memory: calls timed side by side within one process, and peaks of processes that do one thing."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.report import Figure

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Timings:
    """Seconds of each call, round by round.

    Attributes:
        wall: Name -> seconds by the clock.
        cpu: Name -> processor seconds of all threads, which other work on the machine stretches less.
    """

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, name: str, to: str, clock: str = "wall") -> list[float]:
        """One ratio per round: the two stood side by side, so what else the machine did hit both."""
        seconds = getattr(self, clock)
        return [a / b for a, b in zip(seconds[name], seconds[to], strict=True)]

    def summary(self, to: str) -> dict[str, Any]:
        """Name -> medians in seconds, and "ratio" and "cpu_ratio" to one of the calls as `Ratio` in JSON."""
        return {
            name: {
                "median_s": statistics.median(self.wall[name]),
                "cpu_s": statistics.median(self.cpu[name]),
                "ratio": asdict(Ratio.of(self.ratios(name, to))),
                "cpu_ratio": asdict(Ratio.of(self.ratios(name, to, "cpu"))),
            }
            for name in self.wall
        }

    def speedup(self, name: str, over: str) -> dict[str, Any]:
        """How many times as fast as `over` a call is: "wall" and "cpu", each a `Ratio` in JSON."""
        return {clock: asdict(Ratio.of(self.ratios(over, name, clock))) for clock in ("wall", "cpu")}


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios, and its 95 % confidence interval, whatever the distribution (order statistics)."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """How wide the interval is, as a share of the median."""
        return (self.high - self.low) / self.median

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """With fewer than six rounds the interval is from the least to the greatest."""
        ordered, n = sorted(ratios), len(ratios)
        cut, tail = 0, 0.5**n
        while 2 * tail <= 0.05:
            cut += 1
            tail += math.comb(n, cut) * 0.5**n
        cut = max(cut - 1, 0)
        return cls(statistics.median(ordered), ordered[cut], ordered[n - 1 - cut])

    def figure(self, change: Callable[[float], float], **words: Any) -> Figure:
        """A figure with the interval, each value mapped by a rising function."""
        return Figure(value=change(self.median), low=change(self.low), high=change(self.high), **words)


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, wait: Callable[[], None] = lambda: None) -> Timings:
    """Time the calls one after the other, round by round, every second round backwards; a first round is not counted.

    Args:
        rounds: At least 2.
        wait: Waits for the device; called before and after each call.
    """
    timings = Timings({name: [] for name in calls}, {name: [] for name in calls})
    for number in range(rounds + 1):
        for name in list(calls) if number % 2 else reversed(calls):
            wait()
            start, busy = time.perf_counter(), time.process_time()
            calls[name]()
            wait()
            if number:
                timings.wall[name].append(time.perf_counter() - start)
                timings.cpu[name].append(time.process_time() - busy)
    return timings


@dataclass(frozen=True)
class Enough:
    """When a comparison has been repeated often enough; where the ratio lies has no say, or it would bias the answer.

    Attributes:
        width: Its 95 % interval is narrower than this share of the ratio...
        limit_s: ...or so many seconds have passed since all comparisons began...
        least: ...and in either case it has had so many rounds.
    """

    width: float
    limit_s: float
    least: int = 9

    def reached(self, ratios: Sequence[float], seconds: float) -> bool:
        if len(ratios) < self.least:
            return False
        return seconds >= self.limit_s or Ratio.of(ratios).width < self.width


def paired(calls: Mapping[str, Callable[[], object]], to: str, enough: Enough) -> dict[str, Timings]:
    """Compare each call with one of them in rounds of A B B A, so that what changes evenly with time cancels.

    A round of every comparison that still needs one follows the other, and every second round is B A A B. All calls
    are made once before anything is counted.

    Returns:
        Name -> the timings of it and of `to` in its rounds; a value is the mean of a round's two calls.
    """
    for call in calls.values():
        call()
    found = {name: Timings({name: [], to: []}, {name: [], to: []}) for name in calls if name != to}
    begun, still = time.monotonic(), list(found)
    while still:
        for name in still:
            _round(calls, name, to, found[name])
        seconds = time.monotonic() - begun
        still = [name for name in still if not enough.reached(found[name].ratios(name, to), seconds)]
    return found


def _round(calls: Mapping[str, Callable[[], object]], name: str, to: str, timings: Timings) -> None:
    order = (to, name, name, to) if len(timings.wall[name]) % 2 == 0 else (name, to, to, name)
    taken: dict[str, list[tuple[float, float]]] = {name: [], to: []}
    for each in order:
        start, busy = time.perf_counter(), time.process_time()
        calls[each]()
        taken[each].append((time.perf_counter() - start, time.process_time() - busy))
    for each, two in taken.items():
        wall, cpu = (statistics.mean(values) for values in zip(*two, strict=True))
        timings.wall[each].append(wall)
        timings.cpu[each].append(cpu)


def processor_seconds() -> float:
    """Processor time of this process with all its threads, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_mib() -> float:
    """Peak resident memory of this process.

    Not `ru_maxrss`: that one starts from the peak of the process which started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10


def own_process(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """Run a module in a process of its own; return what its last line says in JSON."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])
