"""``pixelvla record``: demonstrations in the embedded simulator as a LeRobotDataset."""

from __future__ import annotations

from pathlib import Path

import click

from . import spec


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--episodes", type=click.IntRange(min=1), default=500, show_default=True, help="Successful episodes to keep."
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(spec.TASKS),
    help="Repeat for several; all of them if not given.",
)
@click.option("--split", type=click.Choice(spec.SPLITS), default="train", show_default=True)
@click.option("--axis", type=click.Choice(spec.AXES), help="Only with --split variants; without it the seed chooses.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first episode.")
@click.option("--image-size", type=click.IntRange(min=32), default=spec.IMAGE_SIZE, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Simulating processes.")
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="How strongly the execution is disturbed, so that recoveries are shown; 0 is the expert alone.",
)
def record(
    out: Path,
    episodes: int,
    tasks: tuple[str, ...],
    split: str,
    axis: str | None,
    seed: int,
    image_size: int,
    workers: int,
    noise: float,
) -> None:
    """Record demonstrations of the scripted expert into the new folder OUT, with exact masks in OUT.masks.jsonl."""
    from .record import record as run

    done = run(
        out,
        episodes,
        tasks or spec.TASKS,
        split,
        seed,
        image_size,
        workers,
        noise,
        axis,
        progress=lambda kept, frames, failed: click.echo(
            f"{kept}/{episodes} episodes, {frames} frames, {failed} left out"
        ),
    )
    click.echo(
        f"{done.episodes} episodes, {done.frames} frames in {done.folder}; masks in {done.masks}; {done.failed} failed"
    )
