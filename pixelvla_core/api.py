"""Everything that adapters and plugins import from core."""

from pixelvla_core.component import Component
from pixelvla_core.errors import CheckpointError, ContractError, DataError, PluginError, RecipeError, UserError
from pixelvla_core.geometry import Affine
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt
from pixelvla_core.seam.backbone import BackboneAdapter, FlowBackbone, NativeBackbone
from pixelvla_core.seam.batch import Batch, Features, MaskBatch, PromptBatch, Sample
from pixelvla_core.seam.prefix import Past, Prefix
from pixelvla_core.types import ActionSpec, BackboneSpec

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
    "Point",
    "Prefix",
    "Prompt",
    "PromptBatch",
    "RecipeError",
    "Sample",
    "UserError",
    "hookimpl",
]
