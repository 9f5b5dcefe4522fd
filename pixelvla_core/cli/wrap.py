"""``pixelvla wrap``: a pixel-aware model around a base model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--base", required=True, help="The backbone adapter, e.g. openvla.")
@click.option(
    "--weights", required=True, help="A checkpoint folder, a hub id, or a name that a plugin ships, e.g. mini."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--full", is_flag=True, help="Copy the base's weights into the folder.")
@click.argument("overrides", nargs=-1, metavar="[LAYER]... [KEY=VALUE]...")
def wrap(base: str, weights: str, out: Path, full: bool, overrides: tuple[str, ...]) -> None:
    """Build a pixel-aware model around a base model's checkpoint.

    Without LAYERs it has the paper's encoders and head. Until it is trained or given visual prompts, the base inside it
    computes exactly what it computed before. contract.key=NAME says which of the base's statistics to use.
    """
    from pixelvla_core.wrap import wrap as run

    run(base, weights, out, list(overrides), full=full)
