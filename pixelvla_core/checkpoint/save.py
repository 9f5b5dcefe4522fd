"""Writing a checkpoint folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pixelvla_core.checkpoint.identity import folder_identity, weights_folder
from pixelvla_core.checkpoint.manifest import (
    BASE,
    CONTRACT,
    DELTA,
    RECIPE,
    Manifest,
    PartRecord,
    digests,
    write_manifest,
)
from pixelvla_core.checkpoint.names import lora_targets, stored
from pixelvla_core.checkpoint.tensors import write_tensors
from pixelvla_core.errors import CheckpointError
from pixelvla_core.files import atomic_folder, write_json
from pixelvla_core.recipe import Recipe, save_recipe
from pixelvla_core.recipe.layers import MODEL_PARTS, PARTS

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.plugins import Registry

RECORDED = (*MODEL_PARTS, "data")
"""The parts of a recipe that the manifest records; those of an evaluation may be others each time."""


@dataclass(frozen=True)
class Header:
    """What all checkpoints of a run have in common, so that it is looked up (and the base hashed) once."""

    parts: Mapping[str, PartRecord]
    base: Mapping[str, Any]
    lora: Mapping[str, Any]
    folder: Path | None
    """Where the base's weights lie, if that is known."""


def describe(model: PixelVLA, recipe: Recipe, registry: Registry) -> Header:
    """Look up the parts' distributions, the base's identity and LoRA's targets."""
    assert recipe.backbone is not None
    folder = weights_folder(model.backbone, registry.locate(recipe.backbone.name, recipe.backbone.weights))
    base = {
        "weights": recipe.backbone.weights,
        "identity": folder_identity(folder) if folder else None,
        "stored": "delta" if recipe.backbone.weights is None else "no",
    }
    targets = lora_targets(model.state_dict())
    lora = {**asdict(recipe.lora), "targets": targets} if targets else {}
    return Header(_parts(recipe, registry), base, lora, folder)


def save(
    folder: Path,
    model: PixelVLA,
    recipe: Recipe,
    header: Header,
    *,
    stages: Sequence[str] = (),
    step: int = 0,
    trained: Sequence[str] = (),
    state: Mapping[str, Tensor] | None = None,
    extra: Callable[[Path], None] | None = None,
    full: bool = False,
) -> None:
    """Write a checkpoint folder beside ``folder`` and rename it.

    Args:
        stages: The stages that are done. step: optimizer steps over all stages.
        trained: Groups of the base that a stage has trained; their tensors are stored.
        state: The model's whole tensors by name; taken from the model if left out.
        extra: Writes further files, such as the training state, into the folder it is given.
        full: Copy the base's weights into the folder.
    """
    state = model.state_dict() if state is None else state
    base = {**header.base, "stored": "folder"} if full and header.base["stored"] == "no" else header.base
    names = stored(state, model.backbone.spec.groups, trained, whole=base["stored"] == "delta")
    with atomic_folder(folder) as partial:
        write_tensors(partial / DELTA, {name: state[name] for name in names})
        save_recipe(recipe, partial / RECIPE)
        if model.contract is not None:
            write_json(partial / CONTRACT, model.contract.to_json())
        if base["stored"] == "folder":
            _copy_base(header.folder, partial / BASE)
        if extra is not None:
            extra(partial)
        manifest = Manifest(
            parts=header.parts,
            base=base,
            trained=tuple(trained),
            lora=header.lora,
            stages=tuple(stages),
            step=step,
            files=digests(partial),
            version=version("pixelvla"),
        )
        write_manifest(partial, manifest)


def _parts(recipe: Recipe, registry: Registry) -> dict[str, PartRecord]:
    records = {}
    for key in RECORDED:
        part, kind = getattr(recipe, key), PARTS[key]
        if part is not None:
            entry = registry.entry(kind, part.name)
            records[kind] = PartRecord(
                name=part.name, distribution=entry.distribution, version=entry.version, options=part.options
            )
    return records


def _copy_base(source: Path | None, target: Path) -> None:
    if source is None:
        raise CheckpointError(
            "The base's weights cannot be copied into the checkpoint, because it is not known where they lie: the "
            "adapter has no `weights_folder`. Save without --full, or give the weights as a folder."
        )
    shutil.copytree(source, target)
