"""Read and write LeRobot's own layout: config.json, model.safetensors, processors, and the SmolVLM's files in `vlm`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelvla_core.api import (
    CheckpointError,
    StoredTensor,
    UserError,
    base_state_dict,
    check_tensors,
    local_folder,
    no_weights,
    read_json,
    tensor_headers,
)
from pixelvla_core.errors import suggest
from pixelvla_core.files import atomic_folder
from pixelvla_smolvla.config import SmolVLAOptions

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, VLM = "config.json", "model.safetensors", "vlm"
PROCESSORS = ("policy_preprocessor*", "policy_postprocessor*")
WANTED = ("*.json", "*.safetensors", "vlm/*")
WANTED_VLM = ("*.json", "*.txt", "*.jinja", "*.model")


def load_policy(folder: Path, options: SmolVLAOptions, dtype: Any) -> Any:
    """Read a SmolVLAPolicy strictly: nothing missing, nothing left over.

    Args:
        folder: In LeRobot's layout.
        dtype: torch.dtype of the vision-language model and of the expert.

    Returns:
        The policy, in eval mode.

    Raises:
        CheckpointError: something is no SmolVLA, is missing, damaged, or does not fit.
    """
    config = changed(read_config(folder), options.policy)
    check_offered(config, folder / CONFIG)
    file = folder / WEIGHTS
    if not file.is_file():
        raise no_weights(folder, WEIGHTS)
    stored = tensor_headers(file)
    _refuse_buffers(folder, stored)
    policy = set_dtype(new_policy(config, vlm_folder(folder, options.vlm, config.vlm_model_name)), dtype)
    _fill(policy, file, stored)
    return policy


def read_config(folder: Path) -> Any:
    """LeRobot's SmolVLAConfig out of a checkpoint.

    Raises:
        CheckpointError: it is of another policy, damaged, or has fields that LeRobot does not know.
    """
    import draccus
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig

    found = read_json(folder / CONFIG)
    kind = found.pop("type", None)
    if kind != "smolvla":
        what = f"a policy of type {kind!r}" if kind else "no policy of LeRobot's"
        raise CheckpointError(
            f"{folder / CONFIG} describes {what}; the backbone 'smolvla' reads LeRobot's SmolVLA. Give the folder of "
            "one, or choose the backbone that fits."
        )
    try:
        # Where the policy shall run is decided later; LeRobot would look for the machine that it was trained on.
        return draccus.decode(SmolVLAConfig, {**found, "device": "cpu"})
    except (draccus.ParsingError, NotImplementedError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} is no configuration of LeRobot's SmolVLA: {' '.join(str(error).split())}. It may come "
            "from another version of LeRobot; save it again with the one that is installed."
        ) from error


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """The config with other values.

    Raises:
        UserError: a change names no field, or LeRobot refuses its value.
    """
    known = [item.name for item in fields(config)]
    for name in changes:
        if name not in known:
            raise UserError(f"backbone.options.policy has {name!r}, no field of SmolVLAConfig.{suggest(name, known)}")
    try:
        return replace(config, **changes)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"LeRobot refuses the fields in backbone.options.policy: {error}.") from error


def check_offered(config: Any, where: Path) -> None:
    """Refuse settings under which the splice would not be what LeRobot computes.

    Raises:
        CheckpointError: says what to set.
    """
    if config.compile_model:
        raise CheckpointError(
            f"{where} sets compile_model, so LeRobot would compile the model before anything is spliced into it. Set "
            "it to false, or backbone.options.policy={compile_model: false}; compile the wrapped model afterwards."
        )
    if config.adapt_to_pi_aloha:
        raise CheckpointError(
            f"{where} sets adapt_to_pi_aloha, so that LeRobot changes states and actions around the model; that is "
            "not offered. Set it to false and convert the data instead."
        )
    size = config.resize_imgs_with_padding
    if size is None or size[0] != size[1]:
        raise CheckpointError(
            f"{where} has resize_imgs_with_padding = {size}; only images that are padded to a square are offered, "
            "such as [512, 512]."
        )
    if config.action_feature is None or config.robot_state_feature is None:
        raise CheckpointError(
            f"{where} does not say how wide action and observation.state are. Save the policy with its input and "
            "output features."
        )


def _refuse_buffers(folder: Path, stored: Mapping[str, StoredTensor]) -> None:
    """LeRobot before 0.4 kept statistics among the weights, and would now ignore them."""
    found = [name for name in stored if name.startswith(("normalize_", "unnormalize_"))]
    if found:
        raise CheckpointError(
            f"{folder / WEIGHTS} holds statistics among the weights ({found[0]}, ...), as LeRobot before 0.4 wrote "
            "them. Convert it with LeRobot's own lerobot/processor/migrate_policy_normalization.py and give the new "
            "folder."
        )


def vlm_folder(folder: Path, vlm: str | None, named: str) -> Path:
    """The folder of the SmolVLM's configuration, tokenizer and processor; from the hub if need be.

    Raises:
        CheckpointError: it is nowhere, or holds no SmolVLM.
    """
    source = vlm or (str(folder / VLM) if (folder / VLM).is_dir() else named)
    try:
        found = local_folder(source, wanted=WANTED_VLM)
    except CheckpointError as error:
        raise CheckpointError(
            f"SmolVLA needs the configuration and the tokenizer of its SmolVLM, which its own checkpoint does not "
            f"hold. {error} Put those files (not the weights) into {folder / VLM}, or name their folder in "
            "backbone.options.vlm."
        ) from error
    kind = read_json(found / CONFIG).get("model_type")
    if kind != "smolvlm":
        raise CheckpointError(
            f"{found / CONFIG} describes a model of type {kind!r}; expected a SmolVLM, such as "
            "HuggingFaceTB/SmolVLM2-500M-Video-Instruct."
        )
    return found


def new_policy(config: Any, vlm: Path) -> Any:
    """LeRobot's SmolVLAPolicy with random weights, in eval mode.

    Raises:
        CheckpointError: the SmolVLM's files cannot be read, or do not go together with the configuration.
    """
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    own = {"vlm_model_name": config.vlm_model_name, "load_vlm_weights": config.load_vlm_weights}
    # The policy's checkpoint has every weight, so the SmolVLM's own are never read.
    config = replace(config, vlm_model_name=str(vlm), load_vlm_weights=False)
    try:
        with redirect_stdout(sys.stderr):  # LeRobot prints as it builds; stdout belongs to the command's result
            policy = SmolVLAPolicy(config)
    except ImportError as error:
        raise UserError(f"SmolVLA cannot be built: {error} It comes with lerobot[smolvla].") from error
    except (OSError, ValueError, AttributeError, AssertionError) as error:
        raise CheckpointError(
            f"A SmolVLA cannot be built from {vlm} and the policy's {CONFIG}: {' '.join(str(error).split())[:300]}. "
            "The folder must hold config.json, the tokenizer and the processor's files of the SmolVLM that the policy "
            "was made from."
        ) from error
    vars(policy.config).update(own)
    inner = policy.model.vlm_with_expert
    rows, known = inner.config.text_config.vocab_size, len(inner.processor.tokenizer)
    if known > rows:
        raise CheckpointError(
            f"The tokenizer in {vlm} knows {known} tokens, but the model {rows}. Take the files of one SmolVLM."
        )
    return policy.eval()


def set_dtype(policy: Any, dtype: Any) -> Any:
    """Cast the vision-language model and the expert; the layers for states and actions stay in float32."""
    policy.float()
    policy.model.vlm_with_expert.to(dtype)
    return policy


def _fill(policy: Any, file: Path, stored: Mapping[str, StoredTensor]) -> None:
    from safetensors.torch import load_file

    state = policy.state_dict()
    second = _second_names(state, stored)
    check_tensors({name: tensor for name, tensor in state.items() if name not in second}, stored, file)
    # Strict by the check above; the second names of tied tensors are filled with the first.
    policy.load_state_dict(load_file(file), strict=False)


def _second_names(state: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]) -> set[str]:
    """Names that safetensors left out, because the tensor is tied to another and is stored under that one's name."""
    kept = {tensor.data_ptr() for name, tensor in state.items() if name in stored}
    return {name for name, tensor in state.items() if name not in stored and tensor.data_ptr() in kept}


def save_policy(policy: Any, source: Path | None, folder: Path) -> None:
    """Write the folder that ``load_policy`` reads, and LeRobot as well; written beside, then renamed.

    Args:
        source: Where the policy was read from; its processors are copied.

    Raises:
        UserError: the folder holds something that is no SmolVLA.
    """
    if folder.exists() and not _replaceable(folder):
        raise UserError(f"{folder} exists and is no SmolVLA of LeRobot; it is left alone. Give a new folder's name.")
    inner = policy.model.vlm_with_expert
    with atomic_folder(folder) as partial:
        for file in [] if source is None else [found for pattern in PROCESSORS for found in source.glob(pattern)]:
            shutil.copyfile(file, partial / file.name)
        # LoRA is part of a checkpoint only if it was merged.
        policy.save_pretrained(partial, state_dict=base_state_dict(policy))
        inner.config.save_pretrained(partial / VLM)
        inner.processor.save_pretrained(partial / VLM)


def _replaceable(folder: Path) -> bool:
    if (folder / CONFIG).is_file():
        read_config(folder)
        return True
    return folder.is_dir() and not any(folder.iterdir())
