"""LeRobot's own pi0 at a size that a test builds in a moment: 0.2 M parameters, 56 pixels, chunks of 4."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pixelvla_pi0.adapter import Pi0Adapter
from pixelvla_pi0.sizes import Sizes, resized
from pixelvla_pi0.start import word_tokenizer, words_of, write_random

from pixelvla_core.api import Sample
from pixelvla_core.model.config import NativeHeadConfig, PixelEncoderConfig, PromptEncoderConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.model.prompt_encoder import VisualPromptEncoder

SIZES = Sizes()
SIZE, HORIZON, DIM, STATE = 56, 4, 7, 8
CONFIG: dict[str, Any] = {
    "image_resolution": (SIZE, SIZE),
    "chunk_size": HORIZON,
    "n_action_steps": HORIZON,
    "num_inference_steps": 3,
    "tokenizer_max_length": 24,
}
TEXTS = (
    "pick up the red block",
    "open the drawer",
    "move the green cup near the blue plate, then stop",
    "refer to this object",
)


def write(folder: Path, *, cameras: tuple[str, ...] = ("front",), seed: int = 0, **changes: Any) -> Any:
    """Write a tiny pi0 and return LeRobot's policy."""
    return write_random(
        folder,
        words_of(TEXTS),
        sizes=SIZES,
        config={**CONFIG, **changes},
        features={
            **{f"observation.images.{camera}": (3, SIZE, SIZE) for camera in cameras},
            "observation.state": (STATE,),
            "action": (DIM,),
        },
        seed=seed,
    )


def stock(folder: Path) -> Any:
    """The same weights by LeRobot's own ``from_pretrained``."""
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy

    with resized(SIZES):
        return PI0Policy.from_pretrained(folder).eval()


def samples(count: int = 3, cameras: tuple[str, ...] = ("front",), seed: int = 0) -> list[Sample]:
    """Random images that are wider than high, random states, and chunks of actions in [-1, 1]."""
    rng = np.random.default_rng(seed)
    return [
        Sample(
            images={camera: rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for camera in cameras},
            instruction=TEXTS[i % 3],
            state=rng.normal(size=STATE).astype(np.float32),
            actions=rng.uniform(-1, 1, (HORIZON, DIM)).astype(np.float32),
            action_valid=np.ones(HORIZON, bool),
            key=f"tiny/{i}",
        )
        for i in range(count)
    ]


def lerobot_batch(chosen: list[Sample]) -> dict[str, torch.Tensor]:
    """The same samples as LeRobot's own processors hand them to a policy."""
    from lerobot.policies.pi0.processor_pi0 import Pi0NewLineProcessor
    from lerobot.processor import TokenizerProcessorStep, TransitionKey, create_transition

    batch = {
        f"observation.images.{camera}": torch.stack(
            [torch.from_numpy(sample.images[camera]).permute(2, 0, 1).float() / 255 for sample in chosen]
        )
        for camera in chosen[0].images
    }
    batch["observation.state"] = torch.from_numpy(np.stack([sample.state for sample in chosen]))
    batch["action"] = torch.from_numpy(np.stack([sample.actions for sample in chosen]))
    tokenize = TokenizerProcessorStep(
        tokenizer=word_tokenizer(words_of(TEXTS)), max_length=24, padding_side="right", padding="max_length"
    )
    transition = create_transition(
        observation=dict(batch), complementary_data={"task": [sample.instruction for sample in chosen]}
    )
    return {**tokenize(Pi0NewLineProcessor()(transition))[TransitionKey.OBSERVATION], "action": batch["action"]}


def words_in(text: str) -> list[str]:
    """The words and marks of a text, as the tokenizer cuts it."""
    return re.findall(r"\w+|[^\w\s]+", text)


def wrap(adapter: Pi0Adapter) -> PixelVLA:
    """All of pixelvla around it, and pi0's own head."""
    torch.manual_seed(1)
    return PixelVLA(
        adapter,
        NativeHead(NativeHeadConfig(), adapter.spec, dim=DIM),
        pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(hidden=16), adapter.spec),
        prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(width=16, hidden=16), adapter.spec),
    ).eval()


def loss(model: PixelVLA, chosen: list[Sample], seed: int = 5) -> torch.Tensor:
    """Its training loss with noise and time from this seed."""
    batch = model.collate(chosen, train=True)
    torch.manual_seed(seed)
    return model.loss(batch)


def chunk(model: PixelVLA, chosen: list[Sample], seed: int = 5) -> torch.Tensor:
    """Its normalised actions with noise from this seed."""
    batch = model.collate(chosen, train=False)
    torch.manual_seed(seed)
    return model.predict(batch)
