"""Everything that adapters and plugins import from core.

Names are resolved on first use, so that a plugin module that only lists its parts imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelvla_core.component import Component, Weights
    from pixelvla_core.errors import CheckpointError, ContractError, DataError, PluginError, RecipeError, UserError
    from pixelvla_core.geometry import Affine
    from pixelvla_core.hookspecs import hookimpl
    from pixelvla_core.plugins import PluginManager
    from pixelvla_core.processes import orderly_termination, serve_parent
    from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt
    from pixelvla_core.seam.backbone import BackboneAdapter, FlowBackbone, NativeBackbone
    from pixelvla_core.seam.batch import Batch, Features, MaskBatch, PromptBatch, Sample
    from pixelvla_core.seam.prefix import Past, Prefix
    from pixelvla_core.types import ActionSpec, BackboneSpec

_HOMES = {
    "component": ["Component", "Weights"],
    "errors": ["CheckpointError", "ContractError", "DataError", "PluginError", "RecipeError", "UserError"],
    "geometry": ["Affine"],
    "hookspecs": ["hookimpl"],
    "plugins": ["PluginManager"],
    "processes": ["orderly_termination", "serve_parent"],
    "prompts": ["Box", "Line", "Mask", "Point", "Prompt"],
    "seam.backbone": ["BackboneAdapter", "FlowBackbone", "NativeBackbone"],
    "seam.batch": ["Batch", "Features", "MaskBatch", "PromptBatch", "Sample"],
    "seam.prefix": ["Past", "Prefix"],
    "types": ["ActionSpec", "BackboneSpec"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ActionSpec",
    "Affine",
    "BackboneAdapter",
    "BackboneSpec",
    "Batch",
    "Box",
    "CheckpointError",
    "Component",
    "ContractError",
    "DataError",
    "Features",
    "FlowBackbone",
    "Line",
    "Mask",
    "MaskBatch",
    "NativeBackbone",
    "Past",
    "PluginError",
    "PluginManager",
    "Point",
    "Prefix",
    "Prompt",
    "PromptBatch",
    "RecipeError",
    "Sample",
    "UserError",
    "Weights",
    "hookimpl",
    "orderly_termination",
    "serve_parent",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pixelvla_core.api' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pixelvla_core.{_HOME_OF[name]}"), name)
