"""Language models on this machine: where their files lie, whether all are there, and what they are."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pixelvla_core.api import UserError
from pixelvla_core.files import sha256

_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_READ = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja")


@dataclass(frozen=True)
class LocalModel:
    """A complete model: its folder, its name, and its commit on the hub ("" for a folder of one's own)."""

    folder: Path
    name: str
    revision: str

    def hashes(self) -> dict[str, str]:
        """Hash of each file that is read: SHA-256, or the one by which the hub's cache names it."""
        files = sorted({path for pattern in _READ for path in self.folder.glob(pattern)})
        return {path.name: _hash(path) for path in files}


def local_model(source: str, revision: str = "") -> LocalModel:
    """Find a model without downloading anything.

    Raises:
        UserError: it is not there or not complete; names the command that downloads it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _complete(LocalModel(folder, source, ""), "Copy the missing files there.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UserError(
            f"{source} is no folder and no id on the Hugging Face hub, so there is no model. Check its spelling."
        )
    command = f"hf download {source}" + (f" --revision {revision}" if revision else "")
    snapshot = _snapshot(source, revision, command)
    return _complete(LocalModel(snapshot, source, snapshot.name), f"Download it: {command}")


def _snapshot(source: str, revision: str, command: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision or None, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"The language model {source}{at} is not on this machine, and nothing is downloaded while work is under "
            f"way. Download it: {command}"
        ) from error


def _complete(model: LocalModel, remedy: str) -> LocalModel:
    missing = [] if (model.folder / "config.json").is_file() else ["config.json"]
    if not any((model.folder / name).is_file() for name in _TOKENIZERS):
        missing.append(" or ".join(_TOKENIZERS))
    missing += _missing_weights(model.folder)
    if missing:
        raise UserError(f"The language model in {model.folder} is not complete: no {', no '.join(missing)}. {remedy}")
    return model


def _missing_weights(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [] if any(folder.glob("*.safetensors")) else ["model.safetensors"]
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"readable {index.name}"]
    return sorted(shard for shard in shards if not (folder / shard).is_file())


def _hash(path: Path) -> str:
    stored = path.resolve()
    return stored.name if stored.parent.name == "blobs" else sha256(path)
