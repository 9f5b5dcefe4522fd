"""Recipes: what a run is made of, composed from layers and checked before anything heavy is loaded."""

from __future__ import annotations

from pixelvla_core.recipe.compose import (
    compose,
    configure,
    find_recipes,
    load_recipe,
    save_recipe,
    split_arguments,
    to_yaml,
)
from pixelvla_core.recipe.schema import (
    Action,
    Annotate,
    Backbone,
    Evaluate,
    Filters,
    Log,
    Lora,
    Part,
    Recipe,
    Stage,
    Video,
)

__all__ = [
    "Action",
    "Annotate",
    "Backbone",
    "Evaluate",
    "Filters",
    "Log",
    "Lora",
    "Part",
    "Recipe",
    "Stage",
    "Video",
    "compose",
    "configure",
    "find_recipes",
    "load_recipe",
    "save_recipe",
    "split_arguments",
    "to_yaml",
]
