"""Which base weights a checkpoint belongs to, told cheaply also for weights of many gigabytes.

A file of up to 64 MiB is hashed whole. Of a larger one, its size, its safetensors header (names, types, shapes) and 64
evenly spaced blocks of 64 KiB are hashed. That tells one model from another and a fine-tuned one from its parent; it is
not made to find a single flipped bit in a file of gigabytes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

WHOLE = 64 * 2**20
BLOCKS, BLOCK = 64, 64 * 2**10
VARIABLE = "PIXELVLA_BASE_WEIGHTS"
"""Environment variable with the folder of the base weights, for when they have moved."""


def file_identity(path: Path) -> str:
    """Hex digest that identifies one file's content."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return digest.hexdigest()
        header = min(int.from_bytes(file.read(8), "little"), WHOLE)
        digest.update(file.read(header))
        for index in range(BLOCKS):
            file.seek((size - BLOCK) * index // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def folder_identity(folder: Path) -> str:
    """Hex digest over the weights in a folder: every ``*.safetensors``, by name, and ``config.json``."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{file_identity(file)}\n".encode())
    return digest.hexdigest()


def weights_folder(adapter: object, weights: str | None) -> Path | None:
    """The folder from which an adapter read its weights: its attribute ``weights_folder``, or the path it was given."""
    if weights is None:
        return None
    folder = getattr(adapter, "weights_folder", None)
    path = Path(folder if folder is not None else weights)
    return path if path.is_dir() else None


def moved(weights: str | None) -> str | None:
    """The weights to use in place of those a recipe names: the environment variable's, if it is set."""
    return os.environ.get(VARIABLE) or weights
