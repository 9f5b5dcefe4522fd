"""Beginning a new run with the weights of an earlier checkpoint, such as fine-tuning a trained model on other data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.checkpoint.find import OPTIMIZER, resolve
from pixelvla_core.checkpoint.identity import weights_folder
from pixelvla_core.checkpoint.load import check_base, load_delta
from pixelvla_core.checkpoint.manifest import RECIPE, verify
from pixelvla_core.errors import CheckpointError
from pixelvla_core.recipe import load_recipe

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.plugins import Registry
    from pixelvla_core.recipe import Recipe


def begin_from(model: PixelVLA, recipe: Recipe, registry: Registry) -> tuple[str, ...]:
    """Put the weights of the checkpoint that ``recipe.start`` names into a model assembled from the recipe.

    The action contract stays that of the recipe's data.

    Returns:
        The groups of the base that were trained before, which checkpoints of the new run must therefore hold as well.

    Raises:
        CheckpointError: it is damaged, is made of other parts, lies on another base, or tensors do not fit.
    """
    folder = resolve(Path(str(recipe.start)))
    manifest = verify(folder, skip=(OPTIMIZER,))
    _check_parts(_parts(load_recipe(folder / RECIPE, registry=registry)), _parts(recipe), folder)
    _check_stored(manifest.base, recipe, folder)
    assert recipe.backbone is not None
    weights = registry.locate(recipe.backbone.name, recipe.backbone.weights)
    check_base(manifest, weights_folder(model.backbone, weights), folder)
    load_delta(model, folder, manifest)
    return manifest.trained


def _parts(recipe: Recipe) -> dict[str, Any]:
    """Whatever changes what the weights mean."""
    backbone, lora = recipe.backbone, recipe.lora
    return {
        "backbone": backbone and (backbone.name, backbone.options),
        "pixel_encoder": recipe.pixel_encoder,
        "prompt_encoder": recipe.prompt_encoder,
        "head": recipe.head,
        "splice": recipe.splice,
        "lora": (lora.rank, lora.alpha, lora.groups) if lora.rank else None,
        "action.horizon": recipe.action.horizon,
    }


def _check_parts(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    different = [f"{key} ({found[key]} there, {wanted[key]} here)" for key in wanted if found[key] != wanted[key]]
    if different:
        raise CheckpointError(
            f"The recipe starts from {folder}, but that model is made of other parts: {'; '.join(different)}. Take the "
            "same parts in the recipe, or leave `start` out."
        )


def _check_stored(base: Any, recipe: Recipe, folder: Path) -> None:
    """Refuse a base that is whole in the checkpoint where the recipe names weights, and the other way round."""
    assert recipe.backbone is not None
    whole, named = base["stored"] == "delta", recipe.backbone.weights
    if whole == (named is None):
        return
    lies = "holds its whole base, which began with random weights" if whole else f"lies on the base {base['weights']!r}"
    remedy = "backbone.weights=null" if whole else f"backbone.weights={base['weights']}"
    raise CheckpointError(f"{folder} {lies}, but the recipe has backbone.weights: {named}. Give {remedy}.")
