"""Beginning a new run with the weights of an earlier checkpoint, such as fine-tuning a trained model on other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.checkpoint.identity import weights_folder
from pixelvla_core.checkpoint.load import check_base, load_delta, read_contract, sound
from pixelvla_core.checkpoint.manifest import RECIPE, Manifest
from pixelvla_core.checkpoint.switch import lasting
from pixelvla_core.contract.begin import begin_contract
from pixelvla_core.errors import CheckpointError
from pixelvla_core.recipe import load_recipe
from pixelvla_core.recipe.layers import MODEL_PARTS

if TYPE_CHECKING:
    from pixelvla_core.contract import ActionContract
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.plugins import Registry
    from pixelvla_core.recipe import Recipe


@dataclass(frozen=True)
class Beginning:
    """The checkpoint that a recipe's ``start`` names; its files have been compared with their checksums."""

    recipe: Recipe
    folder: Path
    manifest: Manifest

    @classmethod
    def of(cls, recipe: Recipe) -> Beginning:
        """Find it.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        return cls(recipe, *sound(Path(str(recipe.start))))

    @property
    def trained(self) -> bool:
        """Whether a stage has trained it; what ``pixelvla wrap`` writes is untrained."""
        return self.manifest.step > 0 or bool(self.manifest.stages)

    @property
    def reads_states_as_they_are(self) -> bool:
        """Whether it was trained without statistics of states, and so has learned them in their own units."""
        contract = read_contract(self.folder)
        return self.trained and contract is not None and contract.state is None

    def contract(self, data: ActionContract) -> tuple[ActionContract, list[str]]:
        """The new run's action contract, and what to tell of it; see ``begin_contract``."""
        changes = self.recipe.start_changes
        return begin_contract(read_contract(self.folder), data, trained=self.trained, changes=changes)

    def load(self, model: PixelVLA, registry: Registry) -> tuple[str, ...]:
        """Put the weights into a model assembled from the recipe.

        Returns:
            The groups of the base that were trained before, which checkpoints of the new run must hold as well.

        Raises:
            CheckpointError: it is made of other parts, lies on another base, or tensors do not fit.
        """
        recipe = self.recipe
        found = _parts(load_recipe(self.folder / RECIPE, registry=registry, parts=MODEL_PARTS), registry)
        fresh_lora = not self.trained and not self.manifest.lora
        _check_parts(found, _parts(recipe, registry), self.folder, skip=("lora",) if fresh_lora else ())
        _check_stored(self.manifest.base, recipe, self.folder)
        assert recipe.backbone is not None
        weights = registry.locate(recipe.backbone.name, recipe.backbone.weights)
        check_base(self.manifest, weights_folder(model.backbone, weights), self.folder)
        load_delta(model, self.folder, self.manifest)
        return self.manifest.trained


def _parts(recipe: Recipe, registry: Registry) -> dict[str, Any]:
    """Whatever changes what the weights mean."""
    lora = recipe.lora
    return {
        **{part: lasting(part, getattr(recipe, part), registry) for part in MODEL_PARTS},
        "splice": recipe.splice,
        "lora": (lora.rank, lora.alpha, lora.groups) if lora.rank else None,
        "action.horizon": recipe.action.horizon,
    }


def _check_parts(found: dict[str, Any], wanted: dict[str, Any], folder: Path, skip: tuple[str, ...] = ()) -> None:
    different = [
        f"{key} ({found[key]} there, {wanted[key]} here)"
        for key in wanted
        if key not in skip and found[key] != wanted[key]
    ]
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
