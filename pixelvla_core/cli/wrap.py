"""``pixelvla wrap``: a pixel-aware model around a base model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--base", required=True, help="The backbone adapter, e.g. openvla.")
@click.option("--weights", required=True, help="A checkpoint folder, a hub id, or a name the adapter knows (mini).")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def wrap(base: str, weights: str, out: Path, overrides: tuple[str, ...]) -> None:
    """Build a pixel-aware model around a base model's checkpoint.

    The result computes exactly what the base computes until it is trained or given visual prompts.
    """
    from pixelvla_core.wrap import wrap as run

    run(base, weights, out, list(overrides))
