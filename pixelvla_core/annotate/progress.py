"""What an annotation says while it works: a live line for each step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from pixelvla_core.annotate.pipeline import Tally
from pixelvla_core.annotate.work import Job
from pixelvla_core.annotations.episodes import EpisodeNote

_EVERY = 30.0
"""Seconds between two plain lines."""


class Progress:
    """Reports the steps of one annotation."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description:26}"), BarColumn(10), MofNCompleteColumn(), TimeRemainingColumn())
        # What does not fit beside the bar goes on in the next line instead of being cut.
        note = TextColumn("{task.fields[note]}", table_column=Column(ratio=1))
        self._bars = Bars(*columns, note, console=self.console, expand=True)
        self._bar: TaskID | None = None
        self._title, self._unit, self._tasks, self._finished, self._before = "", "", 0, 0, 0
        self._begun = time.monotonic()
        self._reset()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def say(self, what: str) -> None:
        """Say something once."""
        self.console.print(what)

    def start(self, title: str, unit: str, tasks: int, finished: int) -> None:
        """Begin a step of so many tasks, of which some were done before; ``unit`` is what its tasks are made of."""
        self._unit, self._title, self._tasks, self._finished, self._before = unit, title, tasks, finished, finished
        self._reset()
        self._bar = self._bars.add_task(title, total=tasks, completed=finished, note="")

    def done(self, tally: Tally) -> None:
        """Count a finished task."""
        self._finished += 1
        self._items += tally.items
        self._frames += tally.frames
        self._reasons += tally.reasons
        if self._bar is not None:
            self._bars.update(self._bar, completed=self._finished, note=self.note())
        if not self.console.is_terminal and time.monotonic() - self._said > _EVERY:
            self._say(f"{self._finished} of {self._tasks} tasks, {duration(self._left())} left")

    def end(self) -> None:
        """Finish the step."""
        if not self.console.is_terminal:
            before = f"{self._before} of {self._tasks} tasks were done before" if self._before else ""
            self._say(before or duration(time.monotonic() - self._since))

    def overall(self) -> str:
        """What the last step came to, over the time of all steps."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        if not self._items:
            return f"Took {duration(seconds)}; nothing was left to do."
        return (
            f"Took {duration(seconds)} for {self._items} {self._unit} and {self._frames} annotated frames "
            f"({_rate(self._items / seconds)} {self._unit}/s, {_rate(self._frames / seconds)} frames/s)."
        )

    def note(self) -> str:
        """Rates, and what became of the items of this step so far."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        rates = [f"{_rate(self._items / seconds)} {self._unit}/s"]
        if self._frames:
            rates.append(f"{_rate(self._frames / seconds)} frames/s")
        lost = {reason: count for reason, count in self._reasons.most_common() if reason}
        if self._reasons:
            rates.append(f"{self._items - sum(lost.values())} kept")
        return ", ".join([*rates, *(f"{count} {reason}" for reason, count in lost.items())])

    def _left(self) -> float:
        done = self._finished - self._before
        return (time.monotonic() - self._since) / max(done, 1) * (self._tasks - self._finished)

    def _say(self, what: str) -> None:
        self._said = time.monotonic()
        self.console.print(f"{self._title}: {what}" + (f" ({self.note()})" if self._items else ""))

    def _reset(self) -> None:
        self._since = self._said = time.monotonic()
        self._items = self._frames = 0
        self._reasons: Counter[str] = Counter()


def duration(seconds: float) -> str:
    """A time as one reads it: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def print_summary(notes: Sequence[EpisodeNote], job: Job, overall: str) -> None:
    """Say what became of the episodes, and what else is to be said of the run."""
    lost = Counter(note.reason.partition(":")[0] for note in notes if not note.kept)
    kept = len(notes) - lost.total()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for count, what in [(kept, "kept"), *((count, reason) for reason, count in lost.most_common())]:
        table.add_row(str(count), f"{count / max(len(notes), 1):.1%}", what, style=None if what == "kept" else "dim")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(overall)
    console.print(f"Wrote {job.out}. Look through it with `pixelvla review {job.out} {job.dataset}`.")
