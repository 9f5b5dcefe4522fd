"""The tiny official checkpoint, what the official code made of it, and a small model with its own tokenizer."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from pixelvla_openvla import OpenVLA
from safetensors.torch import load_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

FIXTURE = Path(__file__).parent / "fixtures" / "openvla_tiny"
MEANS, STDS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5)), ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))

torch.set_num_threads(1)


def _register(name, arguments):
    def entry(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **given):
        return VisionTransformer(**{**arguments, **given})

    entry.__name__ = name
    register_model(entry)


for _name, _arguments in json.loads((FIXTURE / "timm_models.json").read_text()).items():
    if _name.startswith("vit_"):
        _register(_name, _arguments)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """Folder of the tiny official checkpoint."""
    return FIXTURE / "ckpt"


@pytest.fixture(scope="session")
def reference() -> dict[str, torch.Tensor]:
    """What the official code computed; "in.pixel_values" is made from the images by the documented formula."""
    recorded = load_file(FIXTURE / "reference.safetensors")
    pixels = recorded["in.images_uint8"].permute(0, 3, 1, 2).float() / 255.0
    mean, std = torch.tensor(MEANS).view(2, 1, 3, 1, 1), torch.tensor(STDS).view(2, 1, 3, 1, 1)
    recorded["in.pixel_values"] = torch.cat(list((pixels[None] - mean) / std), dim=1)
    return recorded


@pytest.fixture(scope="session")
def _official(checkpoint) -> OpenVLA:
    return OpenVLA.from_pretrained(checkpoint, dtype=torch.float32)


@pytest.fixture
def official(_official) -> OpenVLA:
    """The tiny official checkpoint in float32: a copy, which a test may spoil."""
    return copy.deepcopy(_official)


@pytest.fixture
def small_config() -> dict:
    """A model that is described rather than registered: 56 pixels, 16 patches, 384 ids of which 256 are actions."""
    dino = dict(patch_size=14, embed_dim=24, depth=4, num_heads=2, init_values=0.1, reg_tokens=4, no_embed_class=True)
    return {
        "model_type": "openvla",
        "image_sizes": [56, 56],
        "towers": [dino, dict(patch_size=14, embed_dim=32, depth=5, num_heads=2, class_token=False)],
        "text_config": {
            "vocab_size": 448,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pad_token_id": 384,
        },
        "pad_to_multiple_of": 64,
        "pad_token_id": 384,
        "empty_token_id": 3,
        "norm_stats": {
            "table": {"action": {"q01": [-0.5] * 3 + [0.0], "q99": [0.5] * 3 + [1.0], "mask": [True] * 3 + [False]}}
        },
    }


@pytest.fixture
def word_tokenizer():
    """A tokenizer that knows the prompt's words, without BOS of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = "in what action should the robot take to out put a red green cube on plate open drawer refer , : ?"
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", " ", "In", "Out", *text.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def small(small_config, word_tokenizer) -> OpenVLA:
    """The small model with random weights, and its tokenizer."""
    from pixelvla_openvla.processing import PromptTokenizer

    model = OpenVLA.from_config(small_config, seed=3).eval()
    model.tokenizer = PromptTokenizer(word_tokenizer, model.config)
    return model
