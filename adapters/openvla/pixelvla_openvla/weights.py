"""Reading and writing a checkpoint's tensors, strictly, under their official names.

The only name that differs from timm's is LayerScale's: the checkpoint says `scale_factor`, timm says `gamma`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixelvla_core.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 1000**3


def official_name(name: str) -> str:
    """Return the checkpoint's name of one of our parameters."""
    return name[: -len("gamma")] + "scale_factor" if name.endswith((".ls1.gamma", ".ls2.gamma")) else name


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies and its shape, known from the file's header alone."""

    file: Path
    shape: tuple[int, ...]


def headers(folder: Path) -> dict[str, Stored]:
    """Read the headers of a folder's safetensors files; no tensor is touched.

    Raises:
        CheckpointError: there are no weights, a shard is missing or cut short, or the weights are pickled.
    """
    found: dict[str, Stored] = {}
    for file in _files(folder):
        for name, shape in _header(file):
            if name in found:
                raise CheckpointError(
                    f"{folder}: {name} is in both {found[name].file.name} and {file.name}. Download again."
                )
            found[name] = Stored(file, shape)
    return found


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        return _shards(folder)
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickled:
        raise CheckpointError(
            f"{folder} holds pickled weights ({', '.join(pickled[:3])}), which can run code when read and are never opened "
            f"here; {SINGLE} is expected. Convert them to safetensors in a place you trust."
        )
    raise CheckpointError(f"{folder} holds neither {SINGLE} nor {INDEX}. Give the folder of a complete checkpoint.")


def _shards(folder: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / INDEX} cannot be read ({error!r}). Download the checkpoint again.") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(names)} weight files ({', '.join(missing[:3])}). Download the rest."
        )
    return [folder / name for name in names]


def _header(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle is no dict
                yield name, tuple(handle.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut short ({error}; {file.stat().st_size} bytes). Download or copy it again."
        ) from error


def check(model: nn.Module, stored: Mapping[str, Stored], folder: Path) -> None:
    """Compare names and shapes with what the model needs.

    Raises:
        CheckpointError: a tensor is missing, too many or of another shape; with counts and the first names.
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
    }
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"The weights in {folder} do not fit its config.json: of {len(wanted)} tensors {', '.join(said)}. No weight was "
            "loaded. Take config.json and weights from one and the same checkpoint."
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


def save(model: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write the weights under their official names, in files of at most 5 GB, each written beside and renamed."""
    from safetensors.torch import save_file

    shards = _split(model.state_dict(), dtype)
    files = (
        [SINGLE]
        if len(shards) == 1
        else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    for file, shard in zip(files, shards, strict=True):
        part = {official_name(name): tensor.detach().to("cpu", dtype).contiguous() for name, tensor in shard.items()}
        save_file(part, folder / f".{file}.part", metadata={"format": "pt"})
        os.replace(folder / f".{file}.part", folder / file)
    if len(files) > 1:
        weight_map = {official_name(n): file for file, shard in zip(files, shards, strict=True) for n in shard}
        total = sum(t.numel() * dtype.itemsize for shard in shards for t in shard.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


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


def write_json(path: Path, value: object) -> None:
    """Write JSON beside and rename, so that no reader ever sees half a file."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    os.replace(part, path)
