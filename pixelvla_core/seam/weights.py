"""What reading a base's weights takes, whatever the base: for the ``weights.py`` of adapters.

Everything here refuses what it finds wrong by a CheckpointError of one paragraph, before a tensor is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = ("F64", "F32", "F16", "BF16")
"""The floating-point types by safetensors' names."""


def local_folder(source: str | Path, revision: str | None = None, *, wanted: Sequence[str] | None = None) -> Path:
    """Return a folder as it is, or download the hub repository of that id.

    Args:
        source: A folder, or an id on the Hugging Face hub.
        revision: Branch, tag or commit on the hub.
        wanted: Patterns of the files that are read, such as "*.safetensors"; all files if left out.

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise CheckpointError(f"{source} is no folder and no id on the Hugging Face hub. Check its spelling.")
    return _download(str(source), revision, wanted)


def _download(source: str, revision: str | None, wanted: Sequence[str] | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=None if wanted is None else [*wanted]))
    except (HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"There is no folder {source}, and it could not be downloaded from the Hugging Face hub ({first}). Check "
            "the id and the connection, or download it elsewhere and give the folder."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: it is missing, damaged or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Download or copy it again.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not a JSON object ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object. Download or copy it again.")
    return value


def no_weights(folder: Path, *names: str) -> CheckpointError:
    """The error to raise for a folder that has none of the files of these names; it tells if they are pickled."""
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    remedy = (
        f"It holds pickled weights ({', '.join(pickled[:3])}), which can run code when read and are never opened here; "
        "convert them to safetensors in a place you trust."
        if pickled
        else "Give the folder of a complete checkpoint."
    )
    missing = f"no {names[0]}" if len(names) == 1 else f"neither {' nor '.join(names)}"
    return CheckpointError(f"{folder} has {missing}. {remedy}")


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies, its name and shape there, and its type as safetensors names it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def tensor_headers(file: Path) -> dict[str, StoredTensor]:
    """What a safetensors file holds, by name, from its header alone.

    Raises:
        CheckpointError: it is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - a handle is no dict
            return {
                name: StoredTensor(file, name, tuple(part.get_shape()), part.get_dtype())
                for name, part in parts.items()
            }
    except (SafetensorError, OSError) as error:
        size = f"{file.stat().st_size} bytes" if file.is_file() else "not there"
        raise CheckpointError(
            f"{file} is damaged or cut short ({error}; {size}). Download or copy it again."
        ) from error


def check_tensors(
    wanted: Mapping[str, Tensor], stored: Mapping[str, StoredTensor], where: Path, *, described_by: str = "config.json"
) -> None:
    """Compare names, shapes and types with what a model needs, so that nothing is ever loaded in part.

    Args:
        wanted: The model's state dict (tensors on the meta device will do), under the names of ``stored``.
        stored: What ``tensor_headers`` found.
        where: The file or folder, for the message.
        described_by: The file that the model was built from.

    Raises:
        CheckpointError: tensors are missing, too many, of another shape, or integers where floating point is needed;
            with counts and the first names of each.
    """
    shared = [name for name in wanted if name in stored]
    faults = {
        "missing": [name for name in wanted if name not in stored],
        "not expected": [name for name in stored if name not in wanted],
        "of another shape": [
            f"{name} is {stored[name].shape} instead of {tuple(wanted[name].shape)}"
            for name in shared
            if stored[name].shape != tuple(wanted[name].shape)
        ],
        "not of floating point": [
            f"{name} is {stored[name].dtype}"
            for name in shared
            if wanted[name].is_floating_point() and stored[name].dtype not in FLOATS
        ],
    }
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"The weights in {where} do not fit the model that {described_by} describes: of {len(wanted)} tensors "
            f"{', '.join(said)}. No weight was loaded. Take {described_by} and weights from one and the same "
            "checkpoint."
        )


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
