"""Options that a finished model may be given anew, because its weights mean the same under any of their values.

The dataclass of a part's options lists them in the class variable ``RUN_TIME``, keys within a mapping with a dot, such
as ``RUN_TIME: ClassVar[tuple[str, ...]] = ("sampler", "policy.num_inference_steps")``. A part without it has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pixelvla_core.errors import RecipeError
from pixelvla_core.plugins import Registry
from pixelvla_core.recipe import Part, Recipe
from pixelvla_core.recipe.construct import to_plain
from pixelvla_core.recipe.layers import MODEL_PARTS, PARTS


def check_switched(saved: Recipe, wanted: Recipe, registry: Registry) -> dict[str, Any]:
    """What differs between a checkpoint's recipe and the one it shall run with: path in the recipe -> wanted value.

    Raises:
        RecipeError: something differs that may not; names it and lists what may.
    """
    found = dict(_different(to_plain(saved), to_plain(wanted)))
    allowed = run_time(saved, registry)
    if refused := sorted(set(found) - set(allowed)):
        may = ", ".join(allowed) or "nothing, for no part of it has options of that kind"
        raise RecipeError(
            f"{', '.join(refused)} cannot be changed in a finished model: it would be another one than the "
            f"checkpoint's, or the key says nothing of the model. What may be changed to run it: {may}. Leave the rest "
            "out, or wrap or train a model with it."
        )
    return found


def run_time(recipe: Recipe, registry: Registry) -> list[str]:
    """Paths in a recipe whose values do not change what the weights of its model mean."""
    return [
        f"{part}.options.{name}" for part in MODEL_PARTS for name in _declared(part, getattr(recipe, part), registry)
    ]


def lasting(part: str, named: Part | None, registry: Registry) -> tuple[str, dict[str, Any]] | None:
    """A part's name and those of its options that change what the weights mean, or None without the part."""
    if named is None:
        return None
    options = to_plain(named.options)
    for name in _declared(part, named, registry):
        *trail, last = name.split(".")
        inner = options
        for step in trail:
            inner = inner.get(step, {})
        inner.pop(last, None)
    return named.name, options


def _declared(part: str, named: Part | None, registry: Registry) -> tuple[str, ...]:
    if named is None:
        return ()
    return getattr(registry.get(PARTS[part], named.name).load_config(), "RUN_TIME", ())


def _different(saved: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of the wanted data that is not the saved one's."""
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys([*saved, *wanted]):
            yield from _different(saved.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    elif saved != wanted:
        yield path, wanted
