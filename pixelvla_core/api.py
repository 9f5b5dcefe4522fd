"""Everything that adapters and plugins import from core.

Names are resolved on first use, so that a plugin module that only lists its parts imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelvla_core.cli.main import main
    from pixelvla_core.component import Component, Weights
    from pixelvla_core.errors import CheckpointError, ContractError, DataError, PluginError, RecipeError, UserError
    from pixelvla_core.geometry import Affine
    from pixelvla_core.hookspecs import hookimpl
    from pixelvla_core.model.lora import base_state_dict
    from pixelvla_core.plugins import PluginManager, Registry
    from pixelvla_core.processes import orderly_termination, serve_parent
    from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt
    from pixelvla_core.recipe import configure
    from pixelvla_core.seam.backbone import BackboneAdapter, FlowBackbone, NativeBackbone, StateBackbone
    from pixelvla_core.seam.batch import Batch, Features, MaskBatch, PromptBatch, Sample
    from pixelvla_core.seam.check import check_cameras, check_image
    from pixelvla_core.seam.levels import level_blocks
    from pixelvla_core.seam.prefix import Past, Prefix
    from pixelvla_core.seam.weights import (
        StoredTensor,
        check_tensors,
        local_folder,
        no_weights,
        read_json,
        tensor_headers,
    )
    from pixelvla_core.types import ActionSpec, BackboneSpec

_HOMES = {
    "cli.main": ["main"],
    "component": ["Component", "Weights"],
    "errors": ["CheckpointError", "ContractError", "DataError", "PluginError", "RecipeError", "UserError"],
    "geometry": ["Affine"],
    "hookspecs": ["hookimpl"],
    "model.lora": ["base_state_dict"],
    "plugins": ["PluginManager", "Registry"],
    "processes": ["orderly_termination", "serve_parent"],
    "prompts": ["Box", "Line", "Mask", "Point", "Prompt"],
    "recipe": ["configure"],
    "seam.backbone": ["BackboneAdapter", "FlowBackbone", "NativeBackbone", "StateBackbone"],
    "seam.batch": ["Batch", "Features", "MaskBatch", "PromptBatch", "Sample"],
    "seam.check": ["check_cameras", "check_image"],
    "seam.levels": ["level_blocks"],
    "seam.prefix": ["Past", "Prefix"],
    "seam.weights": [
        "StoredTensor",
        "check_tensors",
        "local_folder",
        "no_weights",
        "read_json",
        "tensor_headers",
    ],
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
    "Registry",
    "Sample",
    "StateBackbone",
    "StoredTensor",
    "UserError",
    "Weights",
    "base_state_dict",
    "check_cameras",
    "check_image",
    "check_tensors",
    "configure",
    "hookimpl",
    "level_blocks",
    "local_folder",
    "main",
    "no_weights",
    "orderly_termination",
    "read_json",
    "serve_parent",
    "tensor_headers",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pixelvla_core.api' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pixelvla_core.{_HOME_OF[name]}"), name)
