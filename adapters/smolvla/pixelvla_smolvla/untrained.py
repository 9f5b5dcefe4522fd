"""A SmolVLA of LeRobot's own classes at a small size with random weights, for checks and tests without a download."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pixelvla_smolvla.config import Sizes

SPECIAL = {
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
    "end_of_utterance_token": "<end_of_utterance>",
}
PAD = "<pad>"


def untrained_policy(size: Sizes, cameras: Sequence[str], **changes: Any) -> Any:
    """A SmolVLAPolicy with seeded random weights.

    Args:
        cameras: Names of its cameras; one called "front" if empty.
        changes: Fields of LeRobot's own SmolVLAConfig.
    """
    from pixelvla_smolvla.weights import new_policy

    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        write_vlm(size, Path(folder))
        torch.manual_seed(size.seed)
        return new_policy(_policy_config(size, cameras or ["front"], changes), Path(folder))


def _policy_config(size: Sizes, cameras: Sequence[str], changes: dict[str, Any]) -> Any:
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

    picture = PolicyFeature(FeatureType.VISUAL, (3, size.image_size, size.image_size))
    fields = {
        "input_features": {
            **{f"{OBS_IMAGES}.{camera}": picture for camera in cameras},
            OBS_STATE: PolicyFeature(FeatureType.STATE, (size.dim,)),
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (size.dim,))},
        "chunk_size": size.horizon,
        "n_action_steps": size.horizon,
        "resize_imgs_with_padding": (size.image_size, size.image_size),
        "num_vlm_layers": size.kept_layers,
        "tokenizer_max_length": 96,  # a token is a byte here
        "vlm_model_name": "vlm",
        "device": "cpu",
    }
    return SmolVLAConfig(**{**fields, **changes})


def write_vlm(size: Sizes, folder: Path) -> None:
    """Write what SmolVLA reads of a SmolVLM besides weights: configuration, tokenizer and processor."""
    import transformers

    of: Any = transformers  # its names are made when they are asked for, so no checker of types knows them
    tokenizer = _byte_tokenizer()
    of.SmolVLMProcessor(of.SmolVLMImageProcessor(), tokenizer, of.SmolVLMVideoProcessor()).save_pretrained(folder)
    pad = tokenizer.pad_token_id
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": 2 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": max(size.heads // 2, 1),
        "pad_token_id": pad,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": 2 * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": 2,
        "image_size": size.image_size,
        "patch_size": size.patch,
    }
    of.SmolVLMConfig(
        text_config=text,
        vision_config=vision,
        scale_factor=size.shuffle,
        image_token_id=tokenizer.convert_tokens_to_ids(SPECIAL["image_token"]),
        pad_token_id=pad,
    ).save_pretrained(folder)


def _byte_tokenizer() -> Any:
    """One token per byte, and the special tokens that SmolVLA asks for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [PAD, *SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(known)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, extra_special_tokens=SPECIAL)
