"""What a run says while it works: one live line on a terminal, plain lines elsewhere, ``metrics.jsonl`` always."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pixelvla_core.files import write_text

METRICS = "metrics.jsonl"


class Progress:
    """Reports the steps of a whole run.

    Args:
        run: The run's folder, or None for a process that only listens.
        total: Optimizer steps of all stages.
        step: Steps done before.
    """

    def __init__(self, run: Path | None, total: int, step: int = 0) -> None:
        self.run, self.total, self.step = run, total, step
        self.console = Console(highlight=False, quiet=run is None, soft_wrap=True)
        self._live: Live | None = None
        self._samples, self._since, self._first = 0, time.monotonic(), step
        self._started = self._since
        if run is not None:
            forget_after(run / METRICS, step)

    def __enter__(self) -> Progress:
        if self.console.is_terminal and self.run is not None:
            self._live = Live(console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start_clock(self) -> None:
        """Begin to measure rates, so that loading and caching do not count."""
        self._samples, self._since, self._first = 0, time.monotonic(), self.step
        self._started = self._since

    def advance(self, samples: int) -> None:
        """Count one optimizer step."""
        self.step += 1
        self._samples += samples

    def report(self, stage: str, step: int, values: dict[str, float]) -> dict[str, float]:
        """Write the metrics since the last report and return them.

        Args:
            stage: Its name. step: of the stage.
            values: "loss" (mean since the last report), "lr", "grad_norm".
        """
        now = time.monotonic()
        rate = self._samples / max(now - self._since, 1e-9)
        per_step = (now - self._started) / max(self.step - self._first, 1)
        metrics = {**values, "samples_per_s": rate, "eta_s": (self.total - self.step) * per_step, **memory()}
        self._samples, self._since = 0, now
        if self.run is not None:
            with (self.run / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, "stage": stage, "stage_step": step, **metrics}) + "\n")
        self._show(f"{stage} {step}  step {self.step}/{self.total}  " + _line(metrics))
        return metrics

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False)

    def _show(self, line: str) -> None:
        if self._live is not None:
            self._live.update(Text(line))
        else:
            self.say(line)
            sys.stdout.flush()


def _line(metrics: dict[str, float]) -> str:
    parts = [f"loss {metrics['loss']:.4f}", f"lr {metrics['lr']:.2e}", f"{metrics['samples_per_s']:.1f} samples/s"]
    parts += [f"ETA {duration(metrics['eta_s'])}", f"{metrics['rss_mib']:.0f} MiB"]
    if "cuda_mib" in metrics:
        parts.append(f"GPU {metrics['cuda_mib']:.0f} MiB")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as one reads them: ``1h02m``, ``3m05s``, ``12s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def memory() -> dict[str, float]:
    """Memory of this process in MiB: resident now, and the peak on the GPU where there is one."""
    found = {"rss_mib": resident_mib()}
    if torch.cuda.is_available():
        found["cuda_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def resident_mib() -> float:
    """Resident memory of this process; where the system does not say, its peak."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def forget_after(path: Path, step: int) -> None:
    """Drop the metrics of steps that a resumed run is going to do again, and a last line cut short by a crash."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
