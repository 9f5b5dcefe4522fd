"""What may differ between the recipe of a run and the one it goes on with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pixelvla_core.errors import RecipeError, UserError
from pixelvla_core.recipe import Recipe
from pixelvla_core.recipe.construct import to_plain
from pixelvla_core.train.state import Position

FREE = ("evaluate", "log")
FREE_IN_STAGE = ("save_every", "log_every", "steps", "cache")
"""Any number of steps is fine that is not below those done; under a linear or cosine schedule the learning rate then
jumps to the other curve."""


def check_unchanged(before: Recipe, now: Recipe, was: Position, here: Position, folder: Path) -> None:
    """Refuse to go on with another recipe or other data; warn about another number of processes.

    Raises:
        RecipeError: names the keys that differ, or the stage that would end before where it stands.
        UserError: the data differ.
    """
    done = [f"stages.{name}.steps" for name in before.run[: was.stage]]
    found = _differences(to_plain(before), to_plain(now))
    different = sorted(path for path in found if path in done or not _free(path))
    if different:
        raise RecipeError(
            f"{folder} was made with another recipe: {', '.join(different[:6])} differ. A run goes on with its own "
            "recipe (leave RECIPE out, and give only changes of steps, save_every or log_every); for another recipe "
            "give another --out."
        )
    _check_steps(now, was, folder)
    if was.data != here.data:
        raise UserError(
            f"{folder} was trained on data with the fingerprint {was.data[:12]}, but the data now have "
            f"{here.data[:12]}. Bring the same data back to go on, or train again with another --out."
        )
    if was.world != here.world:
        warnings.warn(
            f"The run had {was.world} processes and goes on with {here.world}: the order of samples changes.",
            stacklevel=2,
        )


def _check_steps(now: Recipe, was: Position, folder: Path) -> None:
    """Refuse to end a stage before where it stands: its end would be a checkpoint older than the newest one."""
    name = now.run[was.stage]
    steps = now.stages[name].steps
    if steps < was.step:
        raise RecipeError(
            f"{folder} is after step {was.step} of stage {name}, but stages.{name}.steps is {steps}. Give at least "
            f"{was.step}; for a shorter run give another --out."
        )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {*before, *now}:
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield path


def _free(path: str) -> bool:
    parts = path.split(".")
    return parts[0] in FREE or (len(parts) == 3 and parts[0] == "stages" and parts[2] in FREE_IN_STAGE)
