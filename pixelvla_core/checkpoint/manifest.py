"""The manifest of a checkpoint folder: what is in it, what it needs, and a digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pixelvla_core.errors import CheckpointError
from pixelvla_core.files import sha256, write_json

FORMAT = 1
MANIFEST, DELTA, RECIPE, CONTRACT, BASE = "manifest.json", "delta.safetensors", "recipe.yaml", "stats.json", "base"


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """One part: its name and options as in the recipe, and the distribution that offered it."""

    name: str
    distribution: str
    version: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint folder holds.

    Attributes:
        parts: Kind -> the part that the model is made of.
        base: What the delta lies on: "weights" (as the recipe names them), "identity" (see ``identity.py``, or None
            where no folder is known) and "stored" ("delta": all base tensors are in the delta; "folder": in ``base/``;
            "no": only what was trained is stored).
        trained: Groups of the base whose tensors are in the delta because a stage trained them.
        lora: "rank", "alpha", "dropout", "groups" and the "targets" as they were matched; empty without LoRA.
        stages: Names of the stages that are done, in order.
        step: Optimizer steps over all stages.
        files: File name -> sha256.
        version: Of pixelvla.
    """

    parts: Mapping[str, PartRecord]
    base: Mapping[str, Any]
    trained: tuple[str, ...] = ()
    lora: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    step: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    format: int = FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with a digest of itself, so that no flipped bit goes unnoticed there either."""
    data = json.loads(json.dumps(asdict(manifest)))
    write_json(folder / MANIFEST, {**data, "sha256": _digest(data)})


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises:
        CheckpointError: there is none, it is damaged, or its format is another one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {MANIFEST}, so it is no checkpoint of pixelvla. Give a folder that `pixelvla wrap` or "
            "`pixelvla train` wrote."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        stated = data.pop("sha256", None)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Use another checkpoint of the run.") from error
    if stated != _digest(data):
        raise CheckpointError(
            f"{path} does not match its own checksum: it was changed or damaged. Use another checkpoint."
        )
    return _from_json(data, path)


def _from_json(data: dict[str, Any], path: Path) -> Manifest:
    known = {item.name for item in fields(Manifest)}
    if data.get("format") != FORMAT or set(data) != known:
        raise CheckpointError(
            f"{path} has format {data.get('format')!r}; this pixelvla {'' if data.get('format') == FORMAT else 'only '}"
            f"reads format {FORMAT}. It was written by pixelvla {data.get('version')}: install that version to read it."
        )
    parts = {kind: PartRecord(**record) for kind, record in data.pop("parts").items()}
    return Manifest(parts=parts, trained=tuple(data.pop("trained")), stages=tuple(data.pop("stages")), **data)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder but the manifest, by name relative to it."""
    files = sorted(item for item in folder.rglob("*") if item.is_file() and item.name != MANIFEST)
    return {str(item.relative_to(folder)): sha256(item) for item in files}


def verify(folder: Path, *, skip: tuple[str, ...] = ()) -> Manifest:
    """Compare every file with its digest and return the manifest.

    Args:
        skip: Names of files that are not going to be read.

    Raises:
        CheckpointError: names the first file that is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    for name, stated in manifest.files.items():
        path = folder / name
        if name not in skip and (not path.is_file() or sha256(path) != stated):
            raise CheckpointError(
                f"{path} is {'damaged: its content does not match its checksum' if path.is_file() else 'missing'}. "
                "Copy the checkpoint again, or use another one of the run."
            )
    return manifest


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
