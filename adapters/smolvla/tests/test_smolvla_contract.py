"""The conformance suite on a small SmolVLA, in every layout of its prefix that LeRobot offers."""

from __future__ import annotations

import pytest
import torch
from pixelvla_smolvla.adapter import build
from pixelvla_smolvla.config import Sizes, SmolVLAOptions
from pixelvla_smolvla.plugin import pixelvla_backbones

from pixelvla_core.testing import check_backbone

LAYOUTS = {
    "plain": {},
    "special tokens": {"add_image_special_tokens": True},
    "padded": {"prefix_length": 150, "pad_language_to": "max_length"},
    "an empty camera": {"empty_cameras": 1, "add_image_special_tokens": True},
    "self attention": {"attention_mode": "self_attn"},
    "a shorter expert": {"num_expert_layers": 1},
}


def test_the_backbone_keeps_the_contract():
    report = check_backbone(pixelvla_backbones()[0])
    print(report)
    report.raise_for_failures()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_of_lerobot_keep_the_contract(policy_folder, layout):
    folder = policy_folder(**LAYOUTS[layout])
    check_backbone(pixelvla_backbones()[0], weights=str(folder)).raise_for_failures()


def test_the_published_pictures_keep_the_contract():
    """512 pixels in patches of 16, of which the connector makes one token of 4 x 4."""
    adapter = build(SmolVLAOptions(size=Sizes(image_size=512, patch=16, shuffle=4)), weights=None)
    assert adapter.spec.grid == (8, 8)
    check_backbone(adapter).raise_for_failures()


def test_bfloat16_keeps_the_contract():
    adapter = build(SmolVLAOptions(), weights=None, dtype="bfloat16")
    kinds = {name.split(".")[1]: tensor.dtype for name, tensor in adapter.module.state_dict().items()}
    assert kinds["vlm_with_expert"] == torch.bfloat16
    assert kinds["action_out_proj"] == kinds["state_proj"] == torch.float32  # as LeRobot keeps them
    check_backbone(adapter).raise_for_failures()
