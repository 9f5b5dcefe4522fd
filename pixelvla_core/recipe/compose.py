"""Composing recipes: layers in order, then ``key=value`` overrides, then two passes of checks.

The first pass checks the fixed schema, the second the options of each part against the part's own dataclass.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pixelvla_core.component import Component
from pixelvla_core.errors import PluginError, RecipeError, suggest
from pixelvla_core.files import write_text
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe.construct import construct, to_plain
from pixelvla_core.recipe.layers import (
    PARTS,
    Plain,
    RecipeFile,
    builtin_dir,
    expand,
    files_in,
    full_parts,
    lay,
    value_at,
)
from pixelvla_core.recipe.order import lay_all
from pixelvla_core.recipe.schema import Recipe

_OVERRIDE = re.compile(r"[A-Za-z_][\w.\[\]-]*=")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into names of layers and ``key=value`` overrides."""
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    return [argument for argument in arguments if argument not in overrides], overrides


def compose(
    names: Sequence[str],
    overrides: Sequence[str] = (),
    dirs: Sequence[Path] | None = None,
    registry: Registry | None = None,
    *,
    allow_missing: bool = False,
    parts: Collection[str] = tuple(PARTS),
) -> Recipe:
    """Return the recipe that layers and overrides come to.

    Args:
        names: names in the recipe folders, or paths of YAML files; later ones win.
        overrides: ``key=value`` with a dotted key and a YAML value; they win over every layer.
        dirs: the recipe folders; by default core's own and those of every plugin.
        registry: where parts are looked up; by default every installed one.
        allow_missing: keep ``???``, the mark of what only the user can give, instead of refusing it; to look at only.
        parts: the parts to look up and check; others stay as they are, and need not be installed.

    Raises:
        RecipeError: an unknown layer or key, a value out of range, layers in an order that loses one of them, or parts
            that do not fit together.
        PluginError: a part is unknown, or the plugin that offers it is broken.
    """
    if dirs is None or registry is None:
        manager = PluginManager.load()
        dirs = _default_dirs(manager) if dirs is None else dirs
        registry = manager.registry if registry is None else registry
    content = lay_all([expand(name, dirs) for name in names])
    # The defaults go beneath, so that ${action.normalization} can be asked for where no layer sets it.
    given = _parse(overrides)
    _check_stages(given, content)
    content = _resolve(lay(to_plain(Recipe()), lay(content, given)), allow_missing)
    return _check_parts(construct(Recipe, content), registry, parts)


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    *,
    parts: Collection[str] = tuple(PARTS),
) -> Recipe:
    """Return the recipe in a file, such as the one saved with a run; the arguments are those of :func:`compose`."""
    return compose([str(Path(path).resolve())], overrides, registry=registry, parts=parts)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe so that :func:`load_recipe` gives it back equal."""
    write_text(path, to_yaml(recipe))


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML with every key written out."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True, width=120)


def find_recipes(dirs: Sequence[Path] | None = None) -> list[RecipeFile]:
    """Return every recipe that can be named."""
    return files_in(_default_dirs(PluginManager.load()) if dirs is None else dirs)


def configure(component: Component, options: Plain, path: str = "options") -> Any:
    """Return a part's options as an instance of its own dataclass.

    Args:
        component: the part, from the registry.
        options: key -> value, as in a recipe.
        path: where the options stand, for messages.

    Raises:
        RecipeError: an unknown key, a value of another type, or one out of range.
    """
    config = component.load_config()
    if not (isinstance(config, type) and is_dataclass(config)):
        raise PluginError(f"Part {component.name!r} gives {component.config} as its options; expected a dataclass.")
    return construct(config, options, path)


def _default_dirs(manager: PluginManager) -> list[Path]:
    return [builtin_dir(), *manager.recipe_dirs()]


def _parse(overrides: Sequence[str]) -> Plain:
    for override in overrides:
        if not _OVERRIDE.match(override):
            raise RecipeError(f"{override!r} is no override; expected KEY=VALUE, such as stages.pue.lr=3e-4.")
    try:
        named = [_with_name(override) for override in overrides]
        content: Any = OmegaConf.to_container(OmegaConf.from_dotlist(named), resolve=False)
        return full_parts(content)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"The overrides {' '.join(overrides)} cannot be read: {reason}. Values are YAML.") from error


def _with_name(override: str) -> str:
    """Write ``head=l1`` out as ``head.name=l1``, which an override of its options does not replace."""
    key, _, value = override.partition("=")
    is_name = key in PARTS and re.fullmatch(r"[\w.-]+", value) and value != "null"
    return f"{key}.name={value}" if is_name else override


def _check_stages(given: Plain, content: Plain) -> None:
    """Refuse an override within a stage that no layer defines, before it looks like a stage that lacks its rest."""
    defined = content.get("stages") or {}
    for name, stage in (given.get("stages") or {}).items():
        if name not in defined and not (isinstance(stage, dict) and {"train", "steps"} <= set(stage)):
            raise RecipeError(
                f"There is no stage {name!r}.{suggest(name, defined)} Defined: {', '.join(defined) or 'none'}. A new "
                f"one needs at least stages.{name}.train and stages.{name}.steps."
            )


def _resolve(content: Plain, allow_missing: bool) -> Plain:
    """Resolve ``${...}``, and refuse ``???``, OmegaConf's mark for what only the user can give."""
    try:
        resolved: Any = OmegaConf.to_container(
            OmegaConf.create(content), resolve=True, throw_on_missing=not allow_missing
        )
        return resolved
    except MissingMandatoryValue as error:
        raise RecipeError(f"{error.full_key} has no default; give it as {error.full_key}=VALUE.") from error
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"The recipe cannot be resolved: {reason}. Correct the ${{...}} there.") from error


def _check_parts(recipe: Recipe, registry: Registry, parts: Collection[str]) -> Recipe:
    """Check the parts' options, write their defaults out, and check that head and backbone fit."""
    content = to_plain(recipe)
    found: dict[str, Component] = {}
    for path, kind in PARTS.items():
        part = value_at(content, path)
        if part is not None and path in parts:
            found[path] = registry.get(kind, part["name"])
            part["options"] = to_plain(configure(found[path], part["options"], f"{path}.options"))
    _check_fit(found)
    return construct(Recipe, content)


def _check_fit(found: dict[str, Component]) -> None:
    if "backbone" not in found or "head" not in found:
        return
    head, backbone = found["head"], found["backbone"]
    if missing := head.requires - backbone.provides:
        raise RecipeError(
            f"The head {head.name!r} needs {', '.join(sorted(missing))} from the backbone, but {backbone.name!r} "
            f"provides {', '.join(sorted(backbone.provides)) or 'nothing'}. Choose another head or another backbone."
        )
