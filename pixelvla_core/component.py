"""A part as pure data: enough to list it, check it and load it later, so that listing a hundred parts imports none."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelvla_core.errors import PluginError

KINDS = {
    "backbone": "pixelvla_backbones",
    "pixel_encoder": "pixelvla_pixel_encoders",
    "prompt_encoder": "pixelvla_prompt_encoders",
    "action_head": "pixelvla_action_heads",
    "segmenter": "pixelvla_segmenters",
    "tracker": "pixelvla_trackers",
    "detector": "pixelvla_detectors",
    "reasoner": "pixelvla_reasoners",
    "gripper_finder": "pixelvla_gripper_finders",
    "recording": "pixelvla_recordings",
    "runner": "pixelvla_runners",
    "dataset": "pixelvla_datasets",
    "environment": "pixelvla_environments",
}
"""Every kind of part, with the hook that collects it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part that a plugin offers.

    Args:
        name: what recipes call it; unique within its kind.
        target: ``"package.module:attribute"`` of the callable that builds the part; imported only when it is used.
        config: ``"package.module:attribute"`` of the dataclass of its options; importing it needs no torch.
        summary: one line for ``pixelvla plugins``.
        provides: what a backbone gives to heads: "hidden" (last hidden states), and perhaps "native" (its own objective
            and prediction) and "flow" (the velocity of a flow-matching expert).
        requires: what a head takes from the backbone.

    Raises:
        ValueError: a name or a path is not of the form above.
    """

    name: str
    target: str
    config: str
    summary: str = ""
    provides: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a part is named {self.name!r}; names are lower case letters, digits, '_', '-' and '.'")
        for part in ("target", "config"):
            path = getattr(self, part)
            if not _PATH.fullmatch(path):
                raise ValueError(f"{part} of part {self.name!r} is {path!r}; expected 'package.module:attribute'")
        for part in ("provides", "requires"):
            object.__setattr__(self, part, _as_names(self.name, part, getattr(self, part)))

    def load_config(self) -> type:
        """Import and return the dataclass of this part's options."""
        return _resolve(self.config, self.name)

    def load_target(self) -> Any:
        """Import and return the callable that builds this part."""
        return _resolve(self.target, self.name)

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Import the target and call it; ``docs/plugins.md`` has the arguments for each kind."""
        return self.load_target()(*args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Base weights that a plugin ships.

    Args:
        backbone: name of the adapter that loads them.
        name: what recipes and ``pixelvla wrap --weights`` call them; unique within the backbone.
        folder: where they lie, in the layout that the adapter reads; whether it is there is not looked at to list it.
        summary: one line for ``pixelvla plugins``.
        contract: what their actions mean, where their statistics do not say: the facts that ``pixelvla wrap`` takes as
            ``contract.X=VALUE``.

    Raises:
        ValueError: the backbone or the name is not of the form of names.
    """

    backbone: str
    name: str
    folder: Path
    summary: str = ""
    contract: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in ("backbone", "name"):
            value = getattr(self, part)
            if not _NAME.fullmatch(value):
                raise ValueError(f"{part} of weights is {value!r}; names are lower case letters, digits, '_', '-', '.'")


def _as_names(part: str, field: str, value: Any) -> frozenset[str]:
    if isinstance(value, str):
        raise ValueError(f"{field} of part {part!r} is the string {value!r}; expected a set of strings")
    return frozenset(value)


def _resolve(path: str, part: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(
            f"Part {part!r} needs {module_name}, which cannot be imported: {error}. "
            f"Install what is missing; `pixelvla doctor` lists it."
        ) from error
    for step in attribute.split("."):
        if not hasattr(value, step):
            raise PluginError(f"Part {part!r} points to {path!r}, but {module_name} has no attribute {step!r}.")
        value = getattr(value, step)
    return value
