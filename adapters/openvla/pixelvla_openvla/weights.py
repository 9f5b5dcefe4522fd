"""Reading and writing a checkpoint's tensors, strictly, under their official names.

The only name that differs from timm's is LayerScale's: the checkpoint says `scale_factor`, timm says `gamma`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.files import atomic_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 1000**3
FLOATS = ("F64", "F32", "F16", "BF16")
WANTED = ["*.json", "*.safetensors", "tokenizer.model"]


def official_name(name: str) -> str:
    """Return the checkpoint's name of one of our parameters."""
    return name[: -len("gamma")] + "scale_factor" if name.endswith((".ls1.gamma", ".ls2.gamma")) else name


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """Return a folder as it is, or download the hub repository of that id (only what is read here).

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise CheckpointError(f"{source} is no folder and no id on the Hugging Face hub. Check its spelling.")
    return _download(str(source), revision)


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=WANTED))
    except (HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"There is no folder {source}, and it could not be downloaded from the Hugging Face hub ({first}). Check "
            "the id and the connection, or download it elsewhere and give the folder."
        ) from error


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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: it is damaged or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object. Download or copy it again.")
    return value


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies, its shape, and its type as safetensors names it; known from the file's header alone."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def headers(folder: Path) -> dict[str, Stored]:
    """Read the headers of a folder's safetensors files; no tensor is touched.

    Raises:
        CheckpointError: there are no weights, a shard is missing or cut short, or the weights are pickled.
    """
    found: dict[str, Stored] = {}
    for file in _files(folder):
        for name, shape, dtype in _header(file):
            if name in found:
                raise CheckpointError(
                    f"{folder}: {name} is in both {found[name].file.name} and {file.name}. Download again."
                )
            found[name] = Stored(file, shape, dtype)
    return found


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickled weights ({', '.join(pickled[:3])}), which can run code when read and are never "
            f"opened here; {SINGLE} is expected. Convert them to safetensors in a place you trust."
        )
    raise CheckpointError(f"{folder} holds neither {SINGLE} nor {INDEX}. Give the folder of a complete checkpoint.")


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


def _header(file: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle is no dict
                part = handle.get_slice(name)
                yield name, tuple(part.get_shape()), part.get_dtype()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut short ({error}; {file.stat().st_size} bytes). Download or copy it again."
        ) from error


def check(model: nn.Module, stored: Mapping[str, Stored], folder: Path) -> None:
    """Compare names and shapes with what the model needs.

    Raises:
        CheckpointError: a tensor is missing, too many, of another shape or of integers; with counts and first names.
    """
    wanted = {official_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    faults = {
        "missing": [name for name in wanted if name not in stored],
        "not expected": [name for name in stored if name not in wanted],
        "of another shape": [
            f"{name} is {stored[name].shape} instead of {shape}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ],
        "not of floating point": [
            f"{name} is {entry.dtype}" for name, entry in stored.items() if entry.dtype not in FLOATS
        ],
    }
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"The weights in {folder} do not fit its config.json: of {len(wanted)} tensors {', '.join(said)}. No "
            "weight was loaded. Take config.json and weights from one and the same checkpoint."
        )


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def load(model: nn.Module, stored: Mapping[str, Stored], dtype: torch.dtype) -> None:
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
    state = base_tensors(model)
    if not all(value.is_floating_point() for value in state.values()):
        raise UserError(
            "8-bit or 4-bit weights cannot be saved as a checkpoint; load without `quantize` and save that."
        )
    shards = _split(state, dtype)
    with atomic_folder(folder) as partial:
        _save_shards(shards, partial, dtype)
        for name, content in files.items():
            (partial / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        if tokenizer is not None:
            (partial / "tokenizer.json").write_text(tokenizer)


def base_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's own tensors; LoRA that peft has put beside them is part of a checkpoint only if it was merged."""
    state = model.state_dict()
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}


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
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))


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
