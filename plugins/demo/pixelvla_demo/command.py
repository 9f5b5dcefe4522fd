"""``pixelvla demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .methods import METHODS


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
@click.option(
    "--base",
    type=click.Choice(tuple(METHODS)),
    multiple=True,
    default=("openvla",),
    show_default=True,
    help="Whose mini is tuned; give it once for each.",
)
@click.option("--demonstrations", type=click.IntRange(min=8), default=400, show_default=True, help="To record.")
@click.option(
    "--episodes", type=click.IntRange(min=1), default=100, show_default=True, help="For each cell of the table."
)
@click.option(
    "--overlay-episodes",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="The same for the overlay baseline; the report marks cells of fewer than 100 and claims nothing of them.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes that simulate, and trainings side by side.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Of every stage, in place of what the recipes say: with a few, to see in two minutes that all of it runs.",
)
def demo(out: Path, **options: Any) -> None:
    """Record demonstrations, tune in two stages, evaluate in closed loop and write OUT/report.html.

    What is finished is kept: the same command goes on where it was stopped.
    """
    from .demo import run
    from .plan import Size

    run(out, Size(**options))
