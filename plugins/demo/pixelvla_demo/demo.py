"""The demonstration: one command after the other, each of them one that a user can type.

Finished commands are noted in ``OUT/steps.json`` with the time they took, so that a demonstration that was stopped goes
on; the commands themselves resume within.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pixelvla_core.api import UserError
from pixelvla_core.files import check_target, write_text

from .methods import METHODS, Method

OBJECT_TASKS = ("pick", "move_near")
"""Only these have a version with objects that training never showed."""

DONE = "steps.json"
"""The commands that are done, and how long each took."""


@dataclass(frozen=True)
class Step:
    """One command of the demonstration, and what it is for."""

    title: str
    command: tuple[str, ...]


def plan(
    out: Path, *, base: str, demonstrations: int, episodes: int, overlay_episodes: int, workers: int, seed: int
) -> list[Step]:
    """Every command, in order."""
    demos, notes = out / "demonstrations", out / "annotations"
    steps = [
        Step("Record demonstrations", _record(demos, demonstrations, workers, seed)),
        Step(
            "Annotate them from the simulator's exact masks",
            ("annotations", "oracle", f"{demos}.masks.jsonl", str(demos), str(notes)),
        ),
    ]
    data = (f"data.options.root={demos}", f"data.options.annotations={notes}", f"data.options.cache={out / 'cache'}")
    for method in METHODS:
        steps.append(Step(f"Make {method.title}", _make(out, method, base, data)))
    for method in METHODS:
        for title, scope in _scopes(episodes if method.claimed else overlay_episodes):
            steps.append(Step(f"Evaluate {method.title} on {title}", _evaluate(out, method, scope, workers, seed)))
    return steps


def run(out: Path, **options: Any) -> Path:
    """Carry out the whole demonstration and return its report.

    Raises:
        UserError: ``out`` belongs to something else or to a demonstration with other options, or a command refuses its
            input.
    """
    from .report import write
    from .summary import show

    steps = plan(out, **options)
    cli = click.get_current_context().find_root().command
    check_target(out, "a demonstration", ours=(out / DONE).is_file())
    done = _finished(out, steps)
    write_text(out / DONE, json.dumps(done, indent=1))
    for number, step in enumerate(steps, start=1):
        line = "pixelvla " + " ".join(step.command)
        click.secho(f"\n[{number}/{len(steps)}] {step.title}\n$ {line}", bold=True)
        if line in done:
            click.echo(f"Done before, in {done[line]:.0f} s.")
            continue
        start = time.perf_counter()
        cli.main(args=list(step.command), prog_name="pixelvla", standalone_mode=False)
        done[line] = round(time.perf_counter() - start, 1)
        write_text(out / DONE, json.dumps(done, indent=1))
    show(out, METHODS)
    report = write(out, METHODS, done)
    click.echo(f"\nThe report with pictures: {report}")
    return report


def _record(demos: Path, episodes: int, workers: int, seed: int) -> tuple[str, ...]:
    given = {"--episodes": episodes, "--noise": 0.4, "--workers": workers, "--seed": seed}
    # Objects are twice as many as drawers: each of the four tasks then has about as much to learn from.
    tasks = (*OBJECT_TASKS, *OBJECT_TASKS, "open_drawer", "close_drawer")
    return ("record", str(demos), *_options(given), *(word for task in tasks for word in ("--task", task)))


def _make(out: Path, method: Method, base: str, data: Sequence[str]) -> tuple[str, ...]:
    folder = str(out / method.name)
    if method.recipe is None:
        layers = ("head/native", "evaluate/tabletop")
        return ("wrap", "--base", base, "--weights", "mini", "--out", folder, *layers, "contract.fps=5")
    return ("train", method.recipe, *data, "--out", folder, "--resume")


def _scopes(episodes: int) -> list[tuple[str, tuple[str, ...]]]:
    """The splits of the table, so that each cell has ``episodes`` episodes over its tasks."""
    quarter, half = max(1, round(episodes / 4)), max(1, round(episodes / 2))
    known = ("--split", "visual_matching", "--split", "variants", "--episodes", str(quarter))
    tasks = tuple(word for task in OBJECT_TASKS for word in ("--task", task))
    unseen = ("--split", "unseen_objects", *tasks, "--episodes", str(half))
    return [("visual_matching and variants", known), ("unseen_objects", unseen)]


def _evaluate(out: Path, method: Method, scope: Sequence[str], workers: int, seed: int) -> tuple[str, ...]:
    given: dict[str, Any] = {"--name": method.title, "--workers": workers, "--seed": seed}
    if method.execute is not None:
        given["--execute"] = method.execute
    if method.prompts != ("none",):
        given |= {"--segmenter": "grabcut", "--tracker": "hold", "--films": 1}
    prompts = tuple(word for prompt in method.prompts for word in ("--prompts", prompt))
    return ("eval", str(out / method.name), *scope, *prompts, *_options(given))


def _options(given: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for pair in given.items() for word in pair)


def _finished(out: Path, steps: Sequence[Step]) -> dict[str, float]:
    """Seconds of the commands that finished before."""
    path = out / DONE
    if not path.is_file():
        return {}
    done = json.loads(path.read_text(encoding="utf-8"))
    planned = {"pixelvla " + " ".join(step.command) for step in steps}
    if strange := [line for line in done if line not in planned]:
        raise UserError(
            f"{out} holds a demonstration with other options: it ran `{strange[0]}`. Repeat those options to go on "
            "with it, or give another --out."
        )
    return done
