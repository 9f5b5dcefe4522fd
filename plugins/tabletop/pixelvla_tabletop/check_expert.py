"""How often the scripted expert succeeds: ``python -m pixelvla_tabletop.check_expert --seeds 200``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import click
import numpy as np

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

    @property
    def rate(self) -> float:
        return self.successes / self.episodes


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


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--noise", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
def main(seeds: int, noise: float, workers: int) -> None:
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(check, *cell, range(seeds), noise) for cell in cells()]
        click.echo(f"{'split':16} {'axis':14} {'task':13} {'success':>8} {'steps':>6}  failed seeds")
        for cell in (future.result() for future in futures):
            failed = " ".join(map(str, cell.failed_seeds[:8]))
            click.echo(
                f"{cell.split:16} {cell.axis or '':14} {cell.task:13} {cell.rate:8.1%} {cell.mean_steps:6.1f}  {failed}"
            )


if __name__ == "__main__":
    main()
