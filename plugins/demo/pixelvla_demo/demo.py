"""The demonstration: one command after the other, the trainings side by side.

Finished commands are noted in ``OUT/steps.json`` with the time they took, so that a demonstration that was stopped goes
on; the commands themselves resume within.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from pixelvla_core.api import UserError
from pixelvla_core.files import check_target, write_text

from .lanes import Command, run_side_by_side
from .methods import METHODS, methods_of
from .plan import Phase, Size, plan

DONE = "steps.json"


@dataclass
class Progress:
    """What is done: the seconds that each command took, and those that all took, several at a time."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0

    def note(self, command: Command, seconds: float) -> None:
        """Note one finished command."""
        self.seconds[line(command)] = seconds
        self.save()

    def save(self) -> None:
        """Write the file."""
        write_text(self.path, json.dumps({"seconds": self.seconds, "elapsed": self.elapsed}, indent=1))

    def load(self) -> None:
        """Read the file.

        Raises:
            UserError: it is damaged, or another version wrote it.
        """
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.seconds, self.elapsed = dict(found["seconds"]), float(found["elapsed"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} does not say which commands are done ({error!r}): it is damaged, or of another version. "
                "Give another --out, or remove that folder."
            ) from error


def run(out: Path, size: Size) -> Path:
    """Carry out the whole demonstration and return its report.

    Raises:
        UserError: ``out`` belongs to something else or to a demonstration with other options, or a command refuses its
            input.
    """
    from .report import write
    from .summary import show

    phases = plan(out, size)
    check_target(out, "a demonstration", ours=(out / DONE).is_file())
    # Bases may be added one after the other, and left out again: all of them may have been there before.
    progress = _progress(out, plan(out, replace(size, base=tuple(METHODS))))
    progress.save()
    for number, phase in enumerate(phases, start=1):
        click.secho(f"\n[{number}/{len(phases)}] {phase.title}", bold=True)
        start = time.perf_counter()
        _carry_out(phase, progress, size.workers)
        progress.elapsed = round(progress.elapsed + time.perf_counter() - start, 1)
        progress.save()
    methods = methods_of(size.base)
    show(out, methods)
    report = write(out, methods, progress.seconds, progress.elapsed)
    click.echo(f"\nThe report with pictures: {report}")
    return report


def line(command: Command) -> str:
    """A command as a user types it."""
    return "pixelvla " + " ".join(command)


def _carry_out(phase: Phase, progress: Progress, at_once: int) -> None:
    left = []
    for step in phase.steps:
        click.secho(f"$ {line(step.command)}", bold=True)
        if (seconds := progress.seconds.get(line(step.command))) is None:
            left.append(step)
        else:
            click.echo(f"Done before, in {seconds:.0f} s.")
    if len(phase.steps) > 1:
        run_side_by_side([(step.title, step.command) for step in left], at_once=at_once, finished=progress.note)
    elif left:
        _run_here(left[0].command, progress)


def _run_here(command: Command, progress: Progress) -> None:
    """In this process, which has imported what it takes."""
    start = time.perf_counter()
    cli = click.get_current_context().find_root().command
    cli.main(args=list(command), prog_name="pixelvla", standalone_mode=False)
    progress.note(command, round(time.perf_counter() - start, 1))


def _progress(out: Path, phases: Sequence[Phase]) -> Progress:
    """What finished before."""
    progress = Progress(out / DONE)
    if progress.path.is_file():
        progress.load()
    planned = {line(step.command) for phase in phases for step in phase.steps}
    if strange := [command for command in progress.seconds if command not in planned]:
        raise UserError(
            f"{out} holds a demonstration with other options: it ran `{strange[0]}`. Repeat those options to go on "
            "with it, or give another --out."
        )
    return progress
