"""Laying layers in their order, and refusing orders that cannot be meant.

A layer that undoes what was built on it, or of which nothing is left, would let a run go on with other numbers than
its author reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from pixelvla_core.errors import RecipeError
from pixelvla_core.recipe.layers import PARTS, Layer, Plain, lay, leaves, value_at


def lay_all(groups: Sequence[Sequence[Layer]]) -> Plain:
    """Lay the layers of all named recipes over one another; each file counts once, where it first stands.

    Args:
        groups: for each recipe that was named, its layers from the lowest up.

    Raises:
        RecipeError: a layer stands where it undoes others, is undone wholly, or misses a part beneath it.
    """
    layers = [layer for group in groups for layer in group]
    content = _lay_once(layers, check=True)
    _check_repeated(layers, content)
    for index, group in enumerate(groups[:-1]):
        _check_effect(group, groups[:index], groups[index + 1 :], content)
    return content


def _lay_once(layers: Sequence[Layer], *, check: bool = False) -> Plain:
    content: Plain = {}
    for layer in _first_of_each(layers):
        content = lay(content, layer.content)
        if check:
            _check_named(content, layer)
    return content


def _first_of_each(layers: Sequence[Layer]) -> list[Layer]:
    firsts: dict[object, Layer] = {}
    for layer in layers:
        firsts.setdefault(layer.path, layer)
    return list(firsts.values())


def _check_named(content: Plain, layer: Layer) -> None:
    """Refuse a layer that sets something of a part that neither it nor a layer beneath it names."""
    for path in PARTS:
        part = value_at(content, path)
        if isinstance(part, dict) and "name" not in part:
            raise RecipeError(
                f"The layer {layer.name} sets {', '.join(key for key, _ in leaves(part, path))}, but no layer beneath "
                f"it says which {path} that is. Put a layer that sets {path}.name before it."
            )


def _check_repeated(layers: Sequence[Layer], content: Plain) -> None:
    """Refuse a layer that comes a second time where it would undo what was built on it."""
    again: Plain = {}
    for layer in layers:
        again = lay(again, layer.content)
    final = dict(leaves(again))
    undone = [key for key, value in leaves(content) if final.get(key) != value]
    if undone:
        setters = [layer.name for layer in layers if value_at(layer.content, undone[0]) is not None]
        raise RecipeError(
            f"The layer {setters[-1]} is already part of the composition; where it stands a second time it would undo "
            f"{', '.join(undone)}. Leave it out there, or put it before the layers that build on it."
        )


def _check_effect(
    group: Sequence[Layer], before: Sequence[Sequence[Layer]], after: Sequence[Sequence[Layer]], content: Plain
) -> None:
    """Refuse a named recipe of which nothing is left because later ones set everything in it anew."""
    if any(group[-1].path == layer.path for later in after for layer in later):
        return  # a later composition is built on it
    final = dict(leaves(content))
    lost = [key for key, value in leaves(_lay_once(group)) if final.get(key) != value]
    without = [layer for other in (*before, *after) for layer in other]
    if lost and _lay_once(without) == content:
        raise RecipeError(
            f"The layer {group[-1].name} has no effect: layers after it set {', '.join(lost)} anew. Put it after them."
        )
