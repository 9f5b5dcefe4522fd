"""Read and write the base model's own layout: config.json and model.safetensors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pixelvla_core.api import CheckpointError
from pixelvla_third_party.config import ThirdPartyConfig
from pixelvla_third_party.model import TinyVLA


def load(folder: Path) -> tuple[ThirdPartyConfig, TinyVLA]:
    """Load strictly: nothing missing, nothing left over.

    Raises:
        CheckpointError: a file is missing or damaged, or the tensors are not those of the architecture.
    """
    try:
        config = ThirdPartyConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        tensors = load_file(folder / "model.safetensors")
        module = TinyVLA(config)
        module.load_state_dict(tensors)
    except (OSError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of the backbone 'third_party': {error}. Expected config.json and "
            "model.safetensors as `save_base` writes them; copy the folder again."
        ) from error
    return config, module


def save(config: ThirdPartyConfig, module: TinyVLA, folder: Path) -> None:
    """Write the folder that ``load`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2), encoding="utf-8")
    save_file(module.state_dict(), folder / "model.safetensors")
