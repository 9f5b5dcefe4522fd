"""``pixelvla annotate``: masks and visual prompts for a dataset."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("annotate")
@click.argument("dataset")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The sidecar's folder.")
@click.argument("overrides", nargs=-1, metavar="[LAYER]... [KEY=VALUE]...")
def annotate(dataset: str, out: Path, overrides: tuple[str, ...]) -> None:
    """Find the object to act on in every episode of DATASET, and write masks and visual prompts beside it.

    DATASET is a LeRobotDataset's folder or its id on the Hub. KEYs are those of a recipe's section `annotate`, such as
    runner=ray or filters.min_score=0.4; without LAYERs it has annotate/default, whose models need no download. An
    interrupted annotation goes on where it stopped.
    """
    from pixelvla_core.annotate.run import annotate as run

    run(dataset, out, list(overrides))
