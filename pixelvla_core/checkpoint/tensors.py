"""Named tensors on disk as safetensors; strict comparison of what is there with what is wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixelvla_core.errors import CheckpointError

_OS_ERROR = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to ``path``; tensors that share memory are written apart.

    Raises:
        OSError: the system refused, such as on a full disk.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # safetensors wraps the system's error; give back its number, so that a full disk is known as one.
        found = _OS_ERROR.search(str(error))
        raise (OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else error) from error
    path.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a file into memory of its own.

    Raises:
        CheckpointError: the file is missing, cut short or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned, because a mapped file is aligned differently from torch's own memory, and sums would round
            # differently after a resume.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: {error}. It is missing, cut short or of another format. "
            "Copy it again, or use an earlier checkpoint."
        ) from error


def check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes before anything is loaded.

    Raises:
        CheckpointError: names that are missing or too many, or shapes that differ; counts and the first few of each.
    """
    faults = {
        "missing": sorted(set(wanted) - set(found)),
        "not expected": sorted(set(found) - set(wanted)),
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(set(found) & set(wanted))
            if found[name].shape != wanted[name].shape
        ],
    }
    said = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for what, names in faults.items()
        if names
    ]
    if said:
        raise CheckpointError(
            f"{where} does not fit the model that its recipe describes: of {len(wanted)} tensors {'; '.join(said)}. "
            "No weight was loaded. Use the recipe and the plugin versions that wrote it."
        )


def copy_into(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy values in place, casting to each target's type and device."""
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)
