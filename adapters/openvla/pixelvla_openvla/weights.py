"""Reading and writing a checkpoint's tensors, strictly, under their official names.

The only name that differs from timm's is LayerScale's: the checkpoint says `scale_factor`, timm says `gamma`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core import api
from pixelvla_core.api import (
    CheckpointError,
    StoredTensor,
    UserError,
    base_state_dict,
    check_tensors,
    no_weights,
    read_json,
    tensor_headers,
)
from pixelvla_core.files import atomic_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 1000**3
WANTED = ["*.json", "*.safetensors", "tokenizer.model"]


def official_name(name: str) -> str:
    """Return the checkpoint's name of one of our parameters."""
    return name[: -len("gamma")] + "scale_factor" if name.endswith((".ls1.gamma", ".ls2.gamma")) else name


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """Return a folder as it is, or download the hub repository of that id (only what is read here).

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
    """
    return api.local_folder(source, revision, wanted=WANTED)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; a dataset_statistics.json beside it replaces its statistics.

    Raises:
        CheckpointError: there is no config.json, or a file is not JSON.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json. Give the folder of an OpenVLA checkpoint.")
    config = read_json(folder / "config.json")
    if (folder / "dataset_statistics.json").is_file():
        config["norm_stats"] = read_json(folder / "dataset_statistics.json")
    return config


def headers(folder: Path) -> dict[str, StoredTensor]:
    """Read the headers of a folder's safetensors files; no tensor is touched.

    Raises:
        CheckpointError: there are no weights, a shard is missing or cut short, or the weights are pickled.
    """
    found: dict[str, StoredTensor] = {}
    for file in _files(folder):
        for name, stored in tensor_headers(file).items():
            if name in found:
                raise CheckpointError(
                    f"{folder}: {name} is in both {found[name].file.name} and {file.name}. Download again."
                )
            found[name] = stored
    return found


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    raise no_weights(folder, SINGLE, INDEX)


def _shards(folder: Path) -> list[Path]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise CheckpointError(f"{folder / INDEX} has no weight_map to files beside it. Download the checkpoint again.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} weight files ({', '.join(missing[:3])}). Download the rest."
        )
    return [folder / name for name in names]


def check(model: nn.Module, stored: Mapping[str, StoredTensor], folder: Path) -> None:
    """Compare names, shapes and types with what the model needs.

    Raises:
        CheckpointError: a tensor is missing, too many, of another shape or of integers; with counts and first names.
    """
    check_tensors({official_name(name): value for name, value in model.state_dict().items()}, stored, folder)


def load(model: nn.Module, stored: Mapping[str, StoredTensor], dtype: torch.dtype) -> None:
    """Give a model built on the meta device its weights, one file at a time, each tensor cast as it is read."""
    from safetensors import safe_open

    names = {official_name(name): name for name in model.state_dict()}
    for file in sorted({entry.file for entry in stored.values()}):
        with safe_open(file, framework="pt") as handle:
            part = {names[name]: handle.get_tensor(name).to(dtype) for name in handle.keys()}  # noqa: SIM118
        model.load_state_dict(part, strict=False, assign=True)


def save_folder(
    model: nn.Module, folder: Path, dtype: torch.dtype, files: Mapping[str, object], tokenizer: str | None
) -> None:
    """Write a checkpoint folder, weights in files of at most 5 GB; written beside, then renamed.

    Args:
        files: Name -> content of the JSON files.
        tokenizer: Content of tokenizer.json, if there is one.

    Raises:
        UserError: the folder holds something that is no checkpoint, or the weights are packed in 8 or 4 bits.
    """
    if folder.exists() and not _replaceable(folder):
        raise UserError(f"{folder} exists and is no OpenVLA checkpoint; it is left alone. Give a new folder's name.")
    state = base_state_dict(model)  # LoRA is part of a checkpoint only if it was merged
    if not all(value.is_floating_point() for value in state.values()):
        raise UserError(
            "8-bit or 4-bit weights cannot be saved as a checkpoint; load without `quantize` and save that."
        )
    shards = _split(state, dtype)
    with atomic_folder(folder) as partial:
        _save_shards(shards, partial, dtype)
        for name, content in files.items():
            (partial / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if tokenizer is not None:
            (partial / "tokenizer.json").write_text(tokenizer, encoding="utf-8")


def _replaceable(folder: Path) -> bool:
    if (folder / "config.json").is_file():
        return read_config(folder).get("model_type") == "openvla"
    return folder.is_dir() and not any(folder.iterdir())


def _save_shards(shards: list[dict[str, torch.Tensor]], folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    count = len(shards)
    names = [SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        part = {official_name(key): value.detach().to("cpu", dtype).contiguous() for key, value in shard.items()}
        save_file(part, folder / name, metadata={"format": "pt"})
    if count > 1:
        weight_map = {official_name(key): name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(value.numel() * dtype.itemsize for shard in shards for value in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _split(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        size += tensor.numel() * dtype.itemsize
        if size > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = tensor.numel() * dtype.itemsize
        shards[-1][name] = tensor
    return shards
