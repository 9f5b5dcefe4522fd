"""``pixelvla recipe``: what there is, and what a composition comes to."""

from __future__ import annotations

import click


@click.group()
def recipe() -> None:
    """List recipes, or show what a composition of layers comes to."""


@recipe.command("list")
def list_recipes() -> None:
    """List every recipe and layer with the first line of its comment."""
    from pixelvla_core.recipe import find_recipes

    found = find_recipes()
    width = max((len(layer.name) for layer in found), default=0)
    for layer in found:
        click.echo(f"{layer.name:<{width}}  {layer.summary}".rstrip())


@recipe.command()
@click.argument("names", nargs=-1, required=True, metavar="RECIPE [LAYER]... [KEY=VALUE]...")
def show(names: tuple[str, ...]) -> None:
    """Print the resolved and validated recipe as YAML; ??? marks what only you can give."""
    from pixelvla_core.recipe import compose, split_arguments, to_yaml

    layers, overrides = split_arguments(names)
    click.echo(to_yaml(compose(layers, overrides, allow_missing=True)), nl=False)
