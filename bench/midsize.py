"""The models that the benchmarks share: OpenVLAs with random weights, wrapped or not, and something for them to see.

`MIDSIZE` has a language model of 150 M parameters and reads 224 px images (256 patches); `LARGE` is openvla-7b.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

    from pixelvla_core.api import Sample
    from pixelvla_core.model.pixelvla import PixelVLA

HORIZON, ACTION_DIM, SIDE = 8, 7, 224
INSTRUCTION = "put the red cube on the green plate"
WORDS = {*INSTRUCTION.split(), "In", "What", "action", "should", "robot", "take", "to", "?", ":", "Out"}

TOWER = {"patch_size": 14, "embed_dim": 256, "depth": 8, "num_heads": 4, "mlp_ratio": 4, "class_token": False}
MIDSIZE: Mapping[str, Any] = {
    "model_type": "openvla",
    "towers": [TOWER | {"init_values": 0.1}, TOWER],
    "image_sizes": [SIDE, SIDE],
    "text_config": {
        "vocab_size": 512,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 16,
        "num_attention_heads": 12,
        "pad_token_id": 448,
    },
    "pad_to_multiple_of": 64,
    "pad_token_id": 448,
    "empty_token_id": 3,
}
SMALL_TOWER = TOWER | {"embed_dim": 32, "depth": 3, "num_heads": 2}
TINY: Mapping[str, Any] = MIDSIZE | {
    "towers": [SMALL_TOWER, SMALL_TOWER],
    "image_sizes": [56, 56],
    "text_config": MIDSIZE["text_config"]
    | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}
LARGE: Mapping[str, Any] = {
    "model_type": "openvla",
    "vision_backbone_id": "dinosiglip-vit-so-224px",
    "image_sizes": [SIDE, SIDE],
    "text_config": {"vocab_size": 32064, "pad_token_id": 32000},
}


def backbone(architecture: Mapping[str, Any], *, device: str = "cpu", dtype: str = "float32") -> OpenVLAAdapter:
    """A base model with random weights, made on its device in its type, behind the seam; in eval mode."""
    from pixelvla_openvla import OpenVLA
    from pixelvla_openvla.adapter import OpenVLAAdapter
    from pixelvla_openvla.processing import PromptTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers

    with _made_on(device, dtype):
        base = OpenVLA.from_config(architecture, seed=0).eval()
    words = ["<unk>", "<s>", "</s>", " ", *sorted(WORDS)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    base.tokenizer = PromptTokenizer(tokenizer, base.config)
    return OpenVLAAdapter(base)


@contextmanager
def _made_on(device: str, dtype: str) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def wrapped(base: OpenVLAAdapter, *, encoders: bool = False, head: str = "l1") -> PixelVLA:
    """A PixelVLA around a base, in eval mode; our own modules are float32, as always.

    Args:
        encoders: With the pixel encoder and the prompt encoder of the paper.
        head: "l1" (8-step chunks) or "native" (the base's own prediction).
    """
    from pixelvla_core.model import config
    from pixelvla_core.model.action_head import L1ActionHead
    from pixelvla_core.model.native_head import NativeHead
    from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.model.prompt_encoder import VisualPromptEncoder

    spec = base.spec
    heads = {
        "l1": lambda: L1ActionHead(config.ActionHeadConfig(), spec, horizon=HORIZON, dim=ACTION_DIM),
        "native": lambda: NativeHead(config.NativeHeadConfig(), spec),
    }
    pixel = MultiscalePixelEncoder(config.PixelEncoderConfig(), spec) if encoders else None
    prompt = VisualPromptEncoder(config.PromptEncoderConfig(), spec) if encoders else None
    made = PixelVLA(base, heads[head](), pixel_encoder=pixel, prompt_encoder=prompt)
    return made.to(next(base.module.parameters()).device).eval()


def sample(kinds: Sequence[str] = ()) -> Sample:
    """A random image with visual prompts of these kinds on one object, and the object's mask if there are any."""
    import numpy as np

    from pixelvla_core.api import Box, Line, Mask, Point, Sample

    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[80:130, 60:120] = True
    known = {
        "point": Point(0.4, 0.47),
        "line": Line(((0.3, 0.4), (0.4, 0.47), (0.5, 0.55))),
        "box": Box(0.27, 0.36, 0.54, 0.58),
        "mask": Mask(mask_HW),
    }
    return Sample(
        images={"front": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)},
        instruction=INSTRUCTION,
        prompts={"front": tuple(known[kind] for kind in kinds)} if kinds else {},
        masks={"front": mask_HW[None]} if kinds else {},
    )


def lm_parameters(base: OpenVLAAdapter) -> int:
    """Number of parameters of the language model."""
    return sum(p.numel() for p in base.module.language_model.parameters())
