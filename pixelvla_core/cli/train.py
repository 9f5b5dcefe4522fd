"""``pixelvla train``: run the stages of a recipe."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe", nargs=-1, metavar="RECIPE [LAYER]... [KEY=VALUE]...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the newest valid checkpoint in --out.")
def train(recipe: tuple[str, ...], out: Path, resume: bool) -> None:
    """Run the stages of a recipe.

    RECIPE and LAYERs are names in the recipe folders (`pixelvla recipe list`) or paths of YAML files; later ones win.
    With --resume and no RECIPE, the recipe saved with the run is used.
    """
    from pixelvla_core.recipe import compose, load_recipe, split_arguments

    names, overrides = split_arguments(recipe)
    if not names and not resume:
        raise click.UsageError("Missing argument 'RECIPE'; `pixelvla recipe list` shows what there is.")
    resolved = load_recipe(out / "recipe.yaml", overrides) if resume and not names else compose(names, overrides)
    from pixelvla_core.train.run import train as run  # after the recipe's checks: it imports torch

    run(resolved, out, resume)
