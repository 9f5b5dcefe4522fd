"""``pixelvla from-rlds``."""

from __future__ import annotations

from pathlib import Path

import click

from pixelvla_core.errors import UserError

_PATH = click.Path(path_type=Path)


@click.command("from-rlds")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder of the LeRobotDataset to write.")
@click.option("--layout", default="auto", show_default=True, help="fractal, bridge, bridge_oxe, or auto.")
@click.option("--camera", help="Image feature, such as image_0.  [default: that of the layout]")
@click.option("--fps", type=click.IntRange(min=1), help="Frames per second.  [default: that of the layout]")
@click.option("--episodes", type=click.IntRange(min=1), help="Take only the first ones.")
@click.option("--split", default="train", show_default=True)
@click.option("--images", is_flag=True, help="Store pictures instead of videos.")
def from_rlds(
    folder: Path,
    out: Path,
    layout: str,
    camera: str | None,
    fps: int | None,
    episodes: int | None,
    split: str,
    images: bool,
) -> None:
    """Convert the RLDS dataset in FOLDER (one version of a TFDS dataset) to a LeRobotDataset, without TensorFlow."""
    from pixelvla_rlds.convert import convert
    from pixelvla_rlds.layouts import LAYOUTS

    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"There is no layout {layout!r}. Known: auto, {', '.join(LAYOUTS)}.")
    count = convert(
        folder,
        out,
        layout=layout,
        camera=camera,
        fps=fps,
        episodes=episodes,
        split=split,
        videos=not images,
        done=lambda number: click.echo(f"\r{number} episodes", nl=False, err=True),
    )
    click.echo(f"\nWrote {count} episodes to {out}.")
