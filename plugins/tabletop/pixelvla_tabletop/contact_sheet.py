"""Pictures of what the simulator shows: ``python -m pixelvla_tabletop.contact_sheet FOLDER``.

Writes ``tabletop_tasks.png`` (one expert episode of each task, frame by frame) and ``tabletop_splits.png`` (starts of
episodes of each split and axis), with the target outlined in magenta. The documentation's pictures are made this way.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from . import spec
from .demonstrate import Job, demonstrate
from .env import TabletopEnv

Picture = NDArray[np.uint8]


def outlined(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Return a copy with the border of the mask drawn in magenta."""
    inner = np.logical_and.reduce([np.roll(mask, step, axis) for step in (1, -1) for axis in (0, 1)])
    drawn = image.copy()
    drawn[mask & ~inner] = (255, 0, 255)
    return drawn


def film(task: str, seed: int, frames: int, size: int) -> Picture:
    """Return evenly chosen frames of one expert episode side by side."""
    shown = demonstrate(Job(task, "train", None, seed, size))
    chosen = np.linspace(0, len(shown.images) - 1, frames).round().astype(int)
    cells = [outlined(shown.images[i], shown.target_masks[i]) for i in chosen]
    return _captioned(np.concatenate(cells, 1), str(shown.facts["instruction"]))


def starts(split: str, axis: str | None, seeds: range, size: int) -> Picture:
    """Return the first pictures of several episodes side by side."""
    env = TabletopEnv("all", split, axis, size)
    cells = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        cells.append(outlined(observation["image"], env.target_mask()))
    env.close()
    return _captioned(np.concatenate(cells, 1), split if axis is None else f"{split}: {axis}")


def _captioned(picture: Picture, text: str) -> Picture:
    image = Image.fromarray(np.pad(picture, ((14, 0), (0, 0), (0, 0)), constant_values=255))
    ImageDraw.Draw(image).text((3, 1), text, fill=(0, 0, 0))
    return np.asarray(image)


def _save(rows: list[Picture], path: Path) -> None:
    Image.fromarray(np.concatenate(rows, 0)).save(path, optimize=True)
    click.echo(f"{path}: {path.stat().st_size // 1000} kB")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--size", type=click.IntRange(min=64), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(folder: Path, size: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _save([film(task, seed, 6, size) for task in spec.TASKS], folder / "tabletop_tasks.png")
    seeds = range(seed, seed + 4)
    rows = [starts(split, None, seeds, size) for split in spec.SPLITS[:3]]
    rows += [starts("variants", axis, seeds, size) for axis in spec.AXES]
    _save(rows, folder / "tabletop_splits.png")


if __name__ == "__main__":
    main()
