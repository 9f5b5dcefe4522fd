"""Weights that lie on this machine already: where they are, and what they are. Nothing is downloaded here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.files import sha256

SAFETENSORS = "*.safetensors"


@dataclass(frozen=True)
class LocalWeights:
    """Files of one model.

    Attributes:
        source: Folder or hub id, as it was asked for.
        revision: The commit on the hub; "" of a folder.
        folder: Where the files are.
        files: Names of those that hold weights.
    """

    source: str
    revision: str
    folder: Path
    files: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Return name, revision and hashes, as a sidecar's manifest keeps them."""
        hashes = {name: _sha256_of(self.folder / name) for name in self.files}
        return {"name": self.source, "revision": self.revision, "sha256": hashes}


def find_weights(source: str, revision: str | None, weights: str, also: Sequence[str] = ()) -> LocalWeights:
    """Find a model's files in a folder or in the cache of the Hugging Face hub.

    Args:
        source: A folder, or an id on the hub.
        revision: Branch, tag or commit on the hub.
        weights: Pattern of the files that hold weights.
        also: Patterns of other files that must be there.

    Raises:
        CheckpointError: they are not there; says which command downloads them.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        missing = _missing(folder, [weights, *also])
        if missing:
            raise CheckpointError(f"The folder {folder} has no {missing}. Give the folder of a complete model.")
        return LocalWeights(source, "", folder, _names(folder, weights))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise CheckpointError(f"{source} is no folder and no id on the Hugging Face hub. Check its spelling.")
    cached = _cached(source, revision)
    if cached is None or _missing(cached, [weights, *also]):
        chosen = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"The weights of {source} are not on this machine, and nothing is downloaded without your word. "
            f"Download them: hf download {source}{chosen}"
        )
    return LocalWeights(source, cached.name, cached, _names(cached, weights))


def needs(module: str, extra: str, licence: str = "") -> UserError:
    """The error to raise where a package is not installed that only some parts need; with a licence to read first."""
    first = f" It is licensed under the {licence}: read that first." if licence else ""
    return UserError(
        f"The package {module} is not installed.{first} Install it: pip install 'pixelvla-segment[{extra}]'"
    )


def _cached(source: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _missing(folder: Path, patterns: Sequence[str]) -> str:
    return next((pattern for pattern in patterns if not _names(folder, pattern)), "")


def _names(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.glob(pattern) if path.is_file()))


def _sha256_of(path: Path) -> str:
    state = path.stat()
    return _sha256_once(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_once(path: Path, size: int, changed: int) -> str:
    return sha256(path)
