"""From a recipe to a model, in the one order that works: weights (strict), LoRA on the base, then our own modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pixelvla_core.errors import RecipeError
from pixelvla_core.model import lora
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe import configure
from pixelvla_core.seam.backbone import BackboneAdapter, StateBackbone

if TYPE_CHECKING:
    from pixelvla_core.contract import ActionContract
    from pixelvla_core.recipe.schema import Part, Recipe


def assemble(
    recipe: Recipe,
    *,
    contract: ActionContract | None = None,
    registry: Registry | None = None,
    seed: int = 0,
    backbone: BackboneAdapter | None = None,
) -> PixelVLA:
    """Build the model that a recipe describes, in eval mode.

    Args:
        recipe: Names a backbone and a head; the other parts may be left out.
        contract: Gives the action's dimension; the base's own dimension without one. Its statistics of states, if it
            has some, go to the base.
        registry: Where parts are looked up; every installed one by default.
        seed: Of the random start of LoRA and of our own modules.
        backbone: What ``build_backbone`` gave for this recipe, if it has been built already.

    Raises:
        RecipeError: a part is missing or its options do not fit.
        CheckpointError: the base's weights do not load.
    """
    registry = PluginManager.load().registry if registry is None else registry
    backbone = build_backbone(recipe, registry) if backbone is None else backbone
    if contract is not None and contract.state is not None and isinstance(backbone, StateBackbone):
        backbone.take_states(contract.state)
    if recipe.lora.rank:
        patterns = [_pattern(backbone, group) for group in recipe.lora.groups]
        settings = recipe.lora
        lora.inject(
            backbone.module, patterns, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout, seed=seed
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _around(backbone, recipe, contract, registry)
    return model.eval()


def build_backbone(recipe: Recipe, registry: Registry) -> BackboneAdapter:
    """Load the base model behind its adapter."""
    part = _named(recipe.backbone, "backbone")
    component = registry.get("backbone", part.name)
    quantize = None if part.quantize == "none" else part.quantize
    config = configure(component, part.options, "backbone.options")
    weights = registry.locate(part.name, part.weights)
    return component.build(config, weights=weights, dtype=part.dtype, quantize=quantize)


def _around(backbone: BackboneAdapter, recipe: Recipe, contract: ActionContract | None, registry: Registry) -> PixelVLA:
    spec = backbone.spec
    dim = spec.action.dim if contract is None else contract.dim
    head = _build(registry, "action_head", "head", _named(recipe.head, "head"), spec, recipe.action.horizon, dim)
    return PixelVLA(
        backbone,
        head,
        pixel_encoder=_build(registry, "pixel_encoder", "pixel_encoder", recipe.pixel_encoder, spec),
        prompt_encoder=_build(registry, "prompt_encoder", "prompt_encoder", recipe.prompt_encoder, spec),
        splice=recipe.splice,
        contract=contract,
    )


def _build(registry: Registry, kind: str, key: str, part: Part | None, spec: Any, *action: int) -> Any:
    if part is None:
        return None
    component = registry.get(kind, part.name)
    keywords = dict(zip(("horizon", "dim"), action, strict=False))
    return component.build(configure(component, part.options, f"{key}.options"), spec, **keywords)


def _named(part: Any, key: str) -> Any:
    if part is None:
        raise RecipeError(f"The recipe names no {key}, so there is no model to build. Add a layer or `{key}=NAME`.")
    return part


def _pattern(backbone: BackboneAdapter, group: str) -> str:
    if group not in backbone.spec.groups:
        raise RecipeError(
            f"lora.groups lists {group!r}, which this backbone does not have. Its groups: "
            f"{', '.join(backbone.spec.groups) or 'none'}."
        )
    return backbone.spec.groups[group]
