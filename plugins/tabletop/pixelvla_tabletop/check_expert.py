"""How often the scripted expert succeeds: ``python -m pixelvla_tabletop.check_expert --json docs/expert.json``.

The table that it prints is the one of docs/simulator.md; a test compares the two with the JSON.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from pixelvla_core.files import write_json

from . import spec
from .demonstrate import disturbed
from .env import TabletopEnv
from .expert import Expert


@dataclass(frozen=True)
class Cell:
    """Outcome of one task in one split over a range of seeds."""

    task: str
    split: str
    axis: str | None
    successes: int
    episodes: int
    mean_steps: float
    failed_seeds: tuple[int, ...]


def check(task: str, split: str, axis: str | None, seeds: range, noise: float = 0.0) -> Cell:
    """Let the expert play the given seeds; no picture is drawn."""
    env = TabletopEnv(task, split, axis)
    outcomes = {seed: _play(env, seed, noise) for seed in seeds}
    failed = tuple(seed for seed, (success, _) in outcomes.items() if not success)
    steps = [steps for success, steps in outcomes.values() if success]
    return Cell(task, split, axis, len(steps), len(seeds), float(np.mean(steps)) if steps else 0.0, failed)


def _play(env: TabletopEnv, seed: int, noise: float) -> tuple[bool, int]:
    env.reset(seed=seed, options={"observe": False})
    expert, rng = Expert(env), np.random.default_rng([seed, 7])
    for step in range(1, env.max_steps + 1):
        _, _, success, _, _ = env.step(disturbed(expert.act(), noise, rng), observe=False)
        if success:
            return True, step
    return False, env.max_steps


def cells() -> Iterator[tuple[str, str, str | None]]:
    """Every task in every split, and in every axis of the variants."""
    for split in spec.SPLITS:
        for axis in spec.AXES if split == "variants" else (None,):
            for task in spec.TASKS:
                yield task, split, axis


def played(seeds: int, noise: float, workers: int) -> dict[str, Any]:
    """Play every cell in worker processes; return the outcomes and what they were found with, as JSON."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(check, *cell, range(seeds), noise) for cell in cells()]
        found = [asdict(future.result()) for future in futures]
    return {
        "cells": found,
        "noise": noise,
        "seeds": seeds,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in ("pixelvla-tabletop", "mujoco", "numpy")},
    }


def table(found: Mapping[str, Any]) -> str:
    """What `played` returned as Markdown: a row per split and axis, a column per task."""
    rows: dict[str, dict[str, str]] = {}
    for cell in found["cells"]:
        place = f"{cell['split']}: {cell['axis']}" if cell["axis"] else cell["split"]
        rate = 100 * cell["successes"] / cell["episodes"]
        rows.setdefault(place, {})[cell["task"]] = f"{rate:.4g} % ({cell['mean_steps']:.1f})"
    lines = [["split", *spec.TASKS], ["---"] * (1 + len(spec.TASKS))]
    lines += [[place, *(row[task] for task in spec.TASKS)] for place, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(found: Mapping[str, Any]) -> str:
    """The sentence beneath the table."""
    episodes = sum(cell["episodes"] for cell in found["cells"])
    failed = episodes - sum(cell["successes"] for cell in found["cells"])
    return f"Successes in {found['seeds']} episodes, and the mean number of steps: {failed} of {episodes} failed."


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--noise", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--json", "out", type=click.Path(path_type=Path), help="Write everything, failed seeds too, to this file."
)
def main(seeds: int, noise: float, workers: int, out: Path | None) -> None:
    found = played(seeds, noise, workers)
    if out:
        write_json(out, found)
    click.echo(f"{table(found)}\n\n{summary(found)}")
    for cell in found["cells"]:
        if cell["failed_seeds"]:
            failed = " ".join(map(str, cell["failed_seeds"]))
            click.echo(f"failed: {cell['task']}, {cell['split']}, {cell['axis'] or 'no axis'}: seeds {failed}")


if __name__ == "__main__":
    main()
