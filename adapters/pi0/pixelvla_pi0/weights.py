"""Reading and writing pi0 in LeRobot's layout: config.json and model.safetensors, strictly.

LeRobot's own `from_pretrained` prints a line and goes on with random weights if loading fails; here names and shapes
are compared before a tensor is read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from pixelvla_core.api import (
    CheckpointError,
    UserError,
    base_state_dict,
    check_tensors,
    no_weights,
    read_json,
    tensor_headers,
)
from pixelvla_core.errors import sentence, suggest
from pixelvla_core.files import atomic_folder

from .sizes import FILE, Sizes, resized
from .surface import refuse_compiled

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WANTED = ["*.json", "*.safetensors", "tokenizer/*"]
_VLM = "model.paligemma_with_expert.paligemma."
HEAD, EMBEDDING = f"{_VLM}lm_head.weight", f"{_VLM}model.language_model.embed_tokens.weight"
DTYPES = ("float32", "bfloat16")


def read_config(folder: Path, changes: Mapping[str, Any], dtype: str) -> Any:
    """LeRobot's `PI0Config` of a folder.

    Args:
        changes: Fields to set.
        dtype: Of the weights; LeRobot keeps vision, projector and norms in float32 all the same.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another policy's.
        UserError: a change names no field, or the type is not one of LeRobot's.
    """
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.pi0.configuration_pi0 import PI0Config

    if dtype not in DTYPES:
        raise UserError(f"backbone.dtype is {dtype!r}; LeRobot's pi0 is {' or '.join(DTYPES)}.")
    _check_kind(folder)
    try:
        # The device is the model's own affair; LeRobot would warn of one that is not here.
        config = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu"])
    except Exception as error:  # draccus raises what its many layers raise
        raise CheckpointError(
            f"{folder / CONFIG} is not what this LeRobot writes ({str(error).strip().splitlines()[0]}). Save the "
            "policy again with the installed LeRobot, or install the version that wrote it."
        ) from error
    return changed(config, changes, dtype, [item.name for item in fields(PI0Config)])


def changed(config: Any, changes: Mapping[str, Any], dtype: str, known: list[str]) -> Any:
    """The config with other values.

    Raises:
        UserError: a change names no field, or a value cannot be.
    """
    from draccus.utils import DecodingError

    for name in changes:
        if name == "dtype":
            raise UserError(
                "backbone.options.policy has 'dtype', which is no field to change there: give backbone.dtype."
            )
        if name not in known:
            raise UserError(f"backbone.options.policy has {name!r}, no field of PI0Config.{suggest(name, known)}")
    hints = get_type_hints(type(config))
    try:
        given = {name: _decoded(hints[name], value) for name, value in changes.items()}
        config = replace(config, **{**given, "dtype": dtype})
    except (ValueError, TypeError, DecodingError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"LeRobot refuses the fields in backbone.options.policy: {sentence(reason)}") from error
    if isinstance(config.image_resolution, list):
        config.image_resolution = tuple(config.image_resolution)
    for item in fields(config):
        _check_value(item.name, getattr(config, item.name), item.default)
    return config


def _decoded(hint: Any, value: Any) -> Any:
    """A mapping as what LeRobot makes of it in config.json, such as `rtc_config`; other values as they are."""
    import draccus

    return draccus.decode(hint, dict(value)) if isinstance(value, Mapping) else value


def _check_value(name: str, value: Any, default: Any) -> None:
    """Refuse what LeRobot takes without a look and stumbles over, or samples noise with, much later."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    expected, good = "", True
    if isinstance(default, bool):
        expected, good = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        expected, good = f"a whole number, at least {min(default, 1)}", whole and value >= min(default, 1)
    elif isinstance(default, float):
        expected, good = "a finite number", (whole or isinstance(value, float)) and math.isfinite(value)
    if not good:
        raise UserError(
            f"{name} of this pi0 is {value!r}; expected {expected}. Correct it in backbone.options.policy if it stands "
            f"there, or else in {CONFIG}."
        )


def _check_kind(folder: Path) -> None:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}. Give a folder that LeRobot wrote, such as lerobot/pi0_base.")
    kind = read_json(path).get("type")
    if kind != "pi0":
        found = f"a {kind!r} policy" if kind else "of no LeRobot policy"
        raise CheckpointError(f"{path} is {found}; this adapter reads LeRobot's 'pi0'. Give the weights of a pi0.")


def build(config: Any, sizes: Sizes | None) -> Any:
    """LeRobot's `PI0Policy` without weights: parameters on the meta device, buffers in place.

    Raises:
        UserError: the config wants compiled methods.
    """
    from accelerate import init_empty_weights
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    refuse_compiled(config)
    config.device = None  # LeRobot would move what has no weights yet
    with resized(sizes), init_empty_weights(include_buffers=False):
        policy = PI0Policy(config)
    config.device = "cpu"
    return policy


def model_name(name: str) -> str:
    """The policy's name of a stored tensor, by LeRobot's rules for checkpoints of openpi."""
    if name.startswith("time_mlp_"):
        name = f"action_{name}"
    return name if name.startswith("model.") else f"model.{name}"


def load(folder: Path, policy: Any) -> None:
    """Read the tensors of a folder into a policy without weights, each cast to the type that LeRobot gave it.

    Raises:
        CheckpointError: the file is missing, damaged or pickled; or a tensor is missing, left over or misshapen. Then
            nothing has been loaded.
    """
    from safetensors import safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        raise no_weights(folder, WEIGHTS)
    wanted = policy.state_dict()
    source = {model_name(name): stored for name, stored in tensor_headers(path).items()}
    if EMBEDDING not in source and HEAD in source:
        source[EMBEDDING] = source[HEAD]  # openpi ties them and stores one
    check_tensors(wanted, source, path)
    with safe_open(path, framework="pt") as handle:
        for name, parameter in wanted.items():
            value = handle.get_tensor(source[name].name).to(parameter.dtype)
            policy.load_state_dict({name: value}, strict=False, assign=True)


def save(
    policy: nn.Module, folder: Path, *, sizes: Sizes | None, tokenizer: Any = None, beside: Path | None = None
) -> None:
    """Write a folder in LeRobot's layout, without LoRA; written beside, then renamed.

    Args:
        tokenizer: Saved in ``tokenizer/``, where loading looks first.
        beside: A folder whose other JSON and statistics files are copied, such as LeRobot's processors.

    Raises:
        UserError: the folder holds something that is no pi0.
    """
    from safetensors.torch import save_file

    if folder.exists() and not _replaceable(folder):
        raise UserError(f"{folder} exists and is no pi0 of LeRobot; it is left alone. Give a new folder's name.")
    with atomic_folder(folder) as partial:
        if beside is not None:
            _copy_rest(beside, partial)
        config: Any = policy.config
        config._save_pretrained(partial)
        # LoRA is part of a checkpoint only if it was merged.
        state = {name: value.detach().cpu().contiguous() for name, value in base_state_dict(policy).items()}
        save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        if sizes is not None:
            (partial / FILE).write_text(json.dumps(sizes.to_json(), indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(partial / "tokenizer")


def _copy_rest(source: Path, target: Path) -> None:
    for file in [*source.glob("*.json"), *source.glob("policy_*.safetensors")]:
        if file.name not in (CONFIG, FILE):
            shutil.copyfile(file, target / file.name)


def _replaceable(folder: Path) -> bool:
    if (folder / CONFIG).is_file():
        _check_kind(folder)
        return True
    return folder.is_dir() and not any(folder.iterdir())


def random(config: Any, sizes: Sizes | None, seed: int = 0) -> Any:
    """LeRobot's `PI0Policy` with its own random start, on the CPU; one seed always gives the same."""
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    refuse_compiled(config)
    with torch.random.fork_rng(devices=[]), resized(sizes):
        torch.manual_seed(seed)
        return PI0Policy(config)
