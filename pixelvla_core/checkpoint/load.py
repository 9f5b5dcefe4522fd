"""Reading a checkpoint folder: everything is checked before a weight is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.checkpoint.find import OPTIMIZER, resolve
from pixelvla_core.checkpoint.identity import VARIABLE, folder_identity, moved, weights_folder
from pixelvla_core.checkpoint.manifest import BASE, CONTRACT, DELTA, RECIPE, Manifest, read_manifest, verify
from pixelvla_core.checkpoint.names import stored
from pixelvla_core.checkpoint.switch import check_switched
from pixelvla_core.checkpoint.tensors import check_fit, copy_into, read_tensors
from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.errors import CheckpointError
from pixelvla_core.model.lora import base_name, is_lora
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe import Recipe, load_recipe
from pixelvla_core.recipe.layers import MODEL_PARTS, PARTS

if TYPE_CHECKING:
    import torch

    from pixelvla_core.model.pixelvla import PixelVLA


@dataclass(frozen=True)
class Loaded:
    """A model with the recipe it was made from, and what its checkpoint says of itself."""

    model: PixelVLA
    recipe: Recipe
    manifest: Manifest
    folder: Path


def load(
    folder: Path | str,
    device: str | torch.device = "cpu",
    registry: Registry | None = None,
    *,
    base_weights: str | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """Load a model in eval mode. Of the parts that its recipe names, only the model's own need be installed.

    Args:
        folder: A checkpoint folder, or a run, of which the newest sound checkpoint is taken.
        registry: Where parts are looked up; by default every installed one.
        base_weights: Where the base's weights lie now, if they have moved; the environment variable
            PIXELVLA_BASE_WEIGHTS does the same.
        overrides: ``key=value`` for options that do not change what the weights mean; see ``switch.py``.

    Raises:
        CheckpointError: a file is damaged, a part is not installed, the base is another one or not there, or tensors
            are missing, too many or of another shape.
        RecipeError: an override is not one that a finished model may be given.
    """
    from pixelvla_core.model.assemble import assemble

    folder, manifest = sound(Path(folder))
    registry = PluginManager.load().registry if registry is None else registry
    _check_installed(manifest, registry, folder)
    recipe = running_recipe(folder, registry, overrides)[0]
    assert recipe.backbone is not None, "every checkpoint has a backbone"
    weights = registry.locate(recipe.backbone.name, _weights(folder, manifest, base_weights))
    built = replace(recipe, backbone=replace(recipe.backbone, weights=weights))
    model = assemble(built, contract=read_contract(folder), registry=registry)
    check_base(manifest, weights_folder(model.backbone, weights), folder)
    load_delta(model, folder, manifest)
    return Loaded(model.to(device).eval(), recipe, manifest, folder)


def sound(folder: Path) -> tuple[Path, Manifest]:
    """The checkpoint meant by a folder (see ``resolve``) and its manifest, every file that is read compared once.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    found = resolve(folder)
    if found != folder:  # of a run's, the sound ones are found by comparing
        return found, read_manifest(found)
    return folder, verify(folder, skip=(OPTIMIZER,))


def running_recipe(folder: Path, registry: Registry, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, Any]]:
    """A checkpoint's recipe under overrides, and what they change in it: path -> value.

    Raises:
        RecipeError: an override is not one that a finished model may be given.
    """
    saved = load_recipe(folder / RECIPE, registry=registry, parts=MODEL_PARTS)
    if not overrides:
        return saved, {}
    wanted = load_recipe(folder / RECIPE, overrides, registry=registry, parts=MODEL_PARTS)
    return wanted, check_switched(saved, wanted, registry)


def load_delta(model: PixelVLA, folder: Path, manifest: Manifest) -> None:
    """Put a checkpoint's tensors into a model that was assembled from its recipe.

    LoRA that the model has and the checkpoint does not is left as it began, which changes nothing in the base.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if manifest.lora or not is_lora(name)}
    whole = manifest.base["stored"] == "delta"
    names = stored(state, model.backbone.spec.groups, manifest.trained, whole=whole)
    delta = read_tensors(folder / DELTA)
    if not manifest.lora:
        adapted = {base_name(name): name for name in names}
        delta = {adapted.get(name, name): tensor for name, tensor in delta.items()}
    check_fit(delta, {name: state[name] for name in names}, str(folder / DELTA))
    copy_into(state, delta)


def read_contract(folder: Path) -> ActionContract | None:
    """The action contract that a checkpoint carries, if it has one."""
    path = folder / CONTRACT
    return ActionContract.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _check_installed(manifest: Manifest, registry: Registry, folder: Path) -> None:
    for kind in (PARTS[key] for key in MODEL_PARTS):
        record = manifest.parts.get(kind)
        if record is not None and record.name not in registry.names(kind):
            raise CheckpointError(
                f"{folder} needs the {kind.replace('_', ' ')} {record.name!r} of {record.distribution} "
                f"{record.version}, which is not there. Install it: pip install {record.distribution}"
            )


def _weights(folder: Path, manifest: Manifest, given: str | None) -> str | None:
    if manifest.base["stored"] == "delta":
        return None
    if manifest.base["stored"] == "folder":
        return str(folder / BASE)
    weights = given or moved(manifest.base["weights"])
    if weights is not None and Path(weights).is_absolute() and not Path(weights).is_dir():
        raise CheckpointError(
            f"{folder} lies on base weights in {weights}, which is not a folder (any more). Set the environment "
            f"variable {VARIABLE} to the folder where they are now."
        )
    return weights


def check_base(manifest: Manifest, base: Path | None, folder: Path) -> None:
    """Refuse base weights other than those a checkpoint was made on, where both are known."""
    stated = manifest.base["identity"]
    if base is None or stated is None:
        return
    found = folder_identity(base)
    if found != stated:
        raise CheckpointError(
            f"{folder} was made on base weights with the identity {stated[:12]}, but those in {base} have "
            f"{found[:12]}: another model or revision. Set {VARIABLE} to the folder of those it was made on."
        )
