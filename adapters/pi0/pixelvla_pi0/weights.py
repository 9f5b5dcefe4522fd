"""Reading and writing pi0 in LeRobot's layout: config.json and model.safetensors, strictly.

LeRobot's own `from_pretrained` prints a line and goes on with random weights if loading fails; here names and shapes
are compared before a tensor is read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.errors import suggest
from pixelvla_core.files import atomic_folder

from .sizes import FILE, Sizes, resized
from .surface import refuse_compiled

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WANTED = ["*.json", "*.safetensors", "tokenizer/*"]
_VLM = "model.paligemma_with_expert.paligemma."
HEAD, EMBEDDING = f"{_VLM}lm_head.weight", f"{_VLM}model.language_model.embed_tokens.weight"
DTYPES = ("float32", "bfloat16")


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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=WANTED))
    except (HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"There is no folder {source}, and it could not be downloaded from the Hugging Face hub ({first}). Check "
            "the id and the connection, or download it elsewhere and give the folder."
        ) from error


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
    return changed(config, {**changes, "dtype": dtype}, [item.name for item in fields(PI0Config)])


def changed(config: Any, changes: Mapping[str, Any], known: list[str]) -> Any:
    """The config with other values.

    Raises:
        UserError: a change names no field, or LeRobot refuses its value.
    """
    for name in changes:
        if name not in known:
            raise UserError(f"backbone.options.policy has {name!r}, no field of PI0Config.{suggest(name, known)}")
    try:
        config = replace(config, **changes)
    except (ValueError, TypeError) as error:
        raise UserError(f"LeRobot refuses the fields in backbone.options.policy: {error}.") from error
    if isinstance(config.image_resolution, list):
        config.image_resolution = tuple(config.image_resolution)
    return config


def _check_kind(folder: Path) -> None:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}. Give a folder that LeRobot wrote, such as lerobot/pi0_base.")
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a JSON object ({error}). Download or copy it again.") from error
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

    path = _file(folder)
    wanted = policy.state_dict()
    source = _sources(path)
    if EMBEDDING not in source and HEAD in source:
        source[EMBEDDING] = source[HEAD]  # openpi ties them and stores one
    check(wanted, {name: shape for name, (_, shape) in source.items()}, path)
    with safe_open(path, framework="pt") as handle:
        for name, parameter in wanted.items():
            value = handle.get_tensor(source[name][0]).to(parameter.dtype)
            policy.load_state_dict({name: value}, strict=False, assign=True)


def _file(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    pickled = sorted(p.name for p in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    remedy = (
        f"It holds pickled weights ({', '.join(pickled[:3])}), which can run code when read and are never opened here; "
        "convert them in a place you trust."
        if pickled
        else "Give the folder of a complete checkpoint."
    )
    raise CheckpointError(f"{folder} has no {WEIGHTS}. {remedy}")


def _sources(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The policy's name of every stored tensor -> the stored name and the shape, from the file's header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            names = list(handle.keys())
            return {model_name(name): (name, tuple(handle.get_slice(name).get_shape())) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}; {path.stat().st_size} bytes). Download or copy it again."
        ) from error


def check(wanted: Mapping[str, Tensor], stored: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Compare names and shapes with what the model needs.

    Raises:
        CheckpointError: a tensor is missing, too many or of another shape; with counts and the first names.
    """
    faults = {
        "missing": [name for name in wanted if name not in stored],
        "not expected": [name for name in stored if name not in wanted],
        "of another shape": [
            f"{name} is {stored[name]} instead of {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in stored and stored[name] != tuple(value.shape)
        ],
    }
    said = [f"{len(names)} {what} ({_first(names)})" for what, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"The weights in {path} are not those of this pi0: of {len(wanted)} tensors {', '.join(said)}. No weight "
            f"was loaded. Take {CONFIG} and weights from one and the same checkpoint."
        )


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


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
        state = {name: value.detach().cpu().contiguous() for name, value in base_tensors(policy).items()}
        save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        if sizes is not None:
            (partial / FILE).write_text(json.dumps(sizes.to_json(), indent=2) + "\n")
        if tokenizer is not None:
            tokenizer.save_pretrained(partial / "tokenizer")


def base_tensors(policy: nn.Module) -> dict[str, Tensor]:
    """The policy's own tensors; LoRA that peft has put beside them is part of a checkpoint only if it was merged."""
    state = policy.state_dict()
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}


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
