"""Orders of layers that cannot be meant, because the run would go on with other numbers than its author reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pixelvla_core.errors import RecipeError
from pixelvla_core.recipe.layers import PARTS, Layer, Plain, lay, leaves, value_at

Groups = Sequence[Sequence[Layer]]


def check_names(content: Plain, layer: Layer) -> None:
    """Refuse a layer that sets something of a part that neither it nor a layer beneath it names."""
    for path in PARTS:
        part = value_at(content, path)
        if isinstance(part, dict) and "name" not in part:
            raise RecipeError(
                f"The layer {layer.name} sets {', '.join(key for key, _ in leaves(part, path))}, but no layer beneath "
                f"it says which {path} that is. Put a layer that sets {path}.name before it."
            )


def lay_again(content: Plain, layer: Layer) -> None:
    """Refuse a layer that comes a second time and would undo what was laid over it; let one be that changes nothing."""
    after = dict(leaves(lay(content, layer.content)))
    undone = [key for key, value in leaves(content) if after.get(key) != value]
    if undone:
        raise RecipeError(
            f"The layer {layer.name} is already part of the composition; laid over it again it would undo "
            f"{', '.join(undone)}. Leave it out, or put it before the layers that build on it."
        )


def check_effect(groups: Groups, content: Plain, lay_all: Callable[[Groups], Plain]) -> None:
    """Refuse a named layer of which nothing is left because a later one sets everything in it anew."""
    final = dict(leaves(content))
    for index, group in enumerate(groups[:-1]):
        if any(group[-1].path == layer.path for later in groups[index + 1 :] for layer in later):
            continue  # a later composition is built on it
        lost = [key for key, value in leaves(lay_all([group])) if final.get(key) != value]
        if lost and lay_all([*groups[:index], *groups[index + 1 :]]) == content:
            raise RecipeError(
                f"The layer {group[-1].name} has no effect: layers after it set {', '.join(lost)} anew. "
                "Put it after them."
            )
