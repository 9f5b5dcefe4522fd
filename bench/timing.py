"""Clocks and memory: calls timed in turn within one process, and peaks of processes that do one thing."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def ratio(self, name: str, to: str, clock: str = "wall") -> float:
        """Median of the rounds' ratios."""
        return statistics.median(self.ratios(name, to, clock))

    def summary(self, to: str) -> dict[str, Any]:
        """Medians of everything, and the quartiles of the ratios to one of the calls."""
        return {name: self._row(name, to) for name in self.wall}

    def _row(self, name: str, to: str) -> dict[str, float]:
        low, _, high = statistics.quantiles(self.ratios(name, to), n=4, method="inclusive")
        return {
            "median_s": statistics.median(self.wall[name]),
            "cpu_s": statistics.median(self.cpu[name]),
            "ratio": self.ratio(name, to),
            "ratio_quartile_low": low,
            "ratio_quartile_high": high,
            "cpu_ratio": self.ratio(name, to, "cpu"),
        }


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
