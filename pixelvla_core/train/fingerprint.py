"""A hash of everything that could change what a frozen part of the model computes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pixelvla_core.distributions import libraries
from pixelvla_core.model.lora import base_name
from pixelvla_core.recipe.construct import to_plain

if TYPE_CHECKING:
    from pixelvla_core.data.dataset import Dataset
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.recipe import Recipe, Stage

_CORE = ("seam", "model", "geometry", "prompts", "data", "annotations", "train.cache")
CORE = tuple(f"pixelvla_core.{name}" for name in _CORE)


def fingerprint(kind: str, model: PixelVLA, recipe: Recipe, stage: Stage, dataset: Dataset) -> str:
    """Hash the frozen weights (as they are in memory, LoRA included), data, options, precision, device and code."""
    parts = (model.backbone, model.pixel_encoder, model.prompt_encoder, *leaves(dataset))
    packages = {package_of(part) for part in parts if part is not None}
    digest = hashlib.sha256()
    marked = stage.prompts and kind == "hidden"
    facts = {
        "kind": kind,
        "levels": model.pixel_encoder.levels if model.pixel_encoder and (marked or kind == "features") else (),
        "precision": stage.precision,
        "prompts": marked,
        "data": [dataset.fingerprint, to_plain(recipe.data), len(dataset)],
        "backbone": to_plain(recipe.backbone),
        "tokens": _tokens(recipe, marked) if kind == "hidden" else None,
        "readout": getattr(model.head, "readout", None) if kind == "hidden" else None,
        "device": model.device.type,
        "torch": torch.__version__,
        "libraries": libraries({"pixelvla_core", *packages}),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for index in range(len(dataset)):
        digest.update(dataset.frame_key(index).encode() + b"\n")
    for name, tensor in frozen_tensors(kind, model, marked):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for path in sorted(source_files([*CORE, *(packages - {"pixelvla_core"})])):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tokens(recipe: Recipe, marked: bool) -> Any:
    """What of a recipe decides on the tokens between the vision pass and the head, beside weights."""
    return to_plain([recipe.lora, *([recipe.splice, recipe.pixel_encoder, recipe.prompt_encoder] if marked else [])])


def frozen_tensors(kind: str, model: PixelVLA, marked: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors that the cached values come from: those before the transformer, or all but the head's.

    Args:
        marked: The encoders' too. Without masks and prompts they do nothing, and models that differ in them share.
    """
    unread = ("head.",) if marked else ("head.", "pixel_encoder.", "prompt_encoder.")
    groups = model.backbone.spec.groups
    patterns = [re.compile(groups[group]) for group in ("vision", "projector") if group in groups]
    for name, tensor in sorted(model.state_dict().items()):
        inner = base_name(name).removeprefix("base.")
        if not name.startswith(unread) and (kind == "hidden" or any(p.fullmatch(inner) for p in patterns)):
            yield name, tensor


def package_of(part: Any) -> str:
    """The top-level package that a part's class comes from."""
    return type(part).__module__.partition(".")[0]


def leaves(dataset: Dataset) -> list[Dataset]:
    """A dataset, and all that it is made of."""
    parts: Iterable[Dataset] = getattr(dataset, "parts", {}).values()
    return [dataset, *(leaf for part in parts for leaf in leaves(part))]


def source_files(modules: Iterable[str]) -> set[Path]:
    """The Python files of modules and packages."""
    found: set[Path] = set()
    for module in modules:
        spec = importlib.util.find_spec(module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            found |= set(Path(folder).rglob("*.py"))
        if spec and spec.origin and spec.origin.endswith(".py"):
            found.add(Path(spec.origin))
    return found
