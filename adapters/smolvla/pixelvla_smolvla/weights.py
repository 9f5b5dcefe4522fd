"""Read and write LeRobot's own layout: config.json, model.safetensors, the processors, and the SmolVLM's files in `vlm`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
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

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, VLM = "config.json", "model.safetensors", "vlm"
PREPROCESSOR = "policy_preprocessor.json"
PROCESSORS = ("policy_preprocessor*", "policy_postprocessor*")
WANTED = ("*.json", "*.safetensors", "vlm/*")
WANTED_VLM = ("*.json", "*.txt", "*.jinja", "*.model")


def load_policy(weights: str, vlm: str, dtype: Any) -> tuple[Any, Path]:
    """Read a SmolVLAPolicy strictly: nothing missing, nothing left over.

    Args:
        weights: A folder in LeRobot's layout, or an id on the Hugging Face hub.
        vlm: Where the SmolVLM's configuration and tokenizer are; "" for the checkpoint's own.
        dtype: torch.dtype of the vision-language model and of the expert.

    Returns:
        The policy, in eval mode, and the folder that it was read from.

    Raises:
        CheckpointError: something is no SmolVLA, is missing, damaged, or does not fit.
    """
    folder = local_folder(weights, wanted=WANTED)
    config = read_config(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise no_weights(folder, WEIGHTS)
    stored = tensor_headers(file)
    _refuse_buffers(folder, stored)
    policy = set_dtype(new_policy(config, vlm_folder(folder, vlm, config.vlm_model_name)), dtype)
    _fill(policy, file, stored)
    return policy, folder


def read_config(folder: Path) -> Any:
    """LeRobot's SmolVLAConfig out of a checkpoint.

    Raises:
        CheckpointError: it is of another policy, has fields that LeRobot does not know, or asks for what is not offered.
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
        config = draccus.decode(SmolVLAConfig, {**found, "device": "cpu"})
    except (draccus.ParsingError, NotImplementedError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} is no configuration of LeRobot's SmolVLA: {' '.join(str(error).split())}. It may come "
            "from another version of LeRobot; save it again with the one that is installed."
        ) from error
    _check_offered(config, folder)
    return config


def _check_offered(config: Any, folder: Path) -> None:
    """Refuse settings under which the splice would not be what LeRobot computes."""
    where = folder / CONFIG
    if config.compile_model:
        raise CheckpointError(
            f"{where} sets compile_model, so LeRobot would compile the model before anything is spliced into it. Set "
            "it to false; compile the wrapped model afterwards."
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


def vlm_folder(folder: Path, vlm: str, named: str) -> Path:
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
            f"hold. {error} Put those files (not the weights) into {folder / VLM}, or name their folder in the "
            "backbone's option `vlm`."
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
    return policy.eval()


def set_dtype(policy: Any, dtype: Any) -> Any:
    """Cast the vision-language model and the expert; the layers for states and actions stay in float32, as LeRobot's."""
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
    """Write the folder that ``load_policy`` reads, and that LeRobot reads.

    Args:
        source: Where the policy was read from; its processors are copied.
    """
    policy.save_pretrained(folder, state_dict=base_state_dict(policy))
    inner = policy.model.vlm_with_expert
    inner.config.save_pretrained(folder / VLM)
    inner.processor.save_pretrained(folder / VLM)
    for pattern in PROCESSORS if source is not None and source != folder else ():
        for file in source.glob(pattern):
            shutil.copy2(file, folder / file.name)


def read_normalizer(folder: Path) -> Any:
    """LeRobot's own normalizer with the statistics beside the weights, or None if there are none.

    Raises:
        CheckpointError: the preprocessor names a file that is not there, or is damaged.
    """
    from lerobot.processor import NormalizerProcessorStep
    from safetensors.torch import load_file

    if not (folder / PREPROCESSOR).is_file():
        return None
    for step in read_json(folder / PREPROCESSOR).get("steps", ()):
        if step.get("registry_name") == "normalizer_processor" and step.get("state_file"):
            normalizer = NormalizerProcessorStep(**step["config"])
            tensor_headers(folder / step["state_file"])  # refuses a damaged file in words
            normalizer.load_state_dict(load_file(folder / step["state_file"]))
            return normalizer
    return None
