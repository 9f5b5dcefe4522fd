"""What a conformance run works on, and the few operations that its clauses share.

Shapes: B batch, S sequence, K inserted tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.model.action_head import L1ActionHead
from pixelvla_core.model.config import ActionHeadConfig, PixelEncoderConfig, PromptEncoderConfig
from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.model.prompt_encoder import VisualPromptEncoder
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.seam.backbone import BackboneAdapter
from pixelvla_core.seam.batch import Batch, Sample
from pixelvla_core.seam.prefix import Prefix
from pixelvla_core.types import BackboneSpec

LEVELS = (0.25, 0.5, 0.75, 1.0)
HORIZON = 4
# Largest difference, relative to the largest value, that counts as rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
COARSE = 0.05


class ClauseError(Exception):
    """A clause does not hold; the message says what was found, what was expected and where to look."""


def expect(holds: bool | Tensor, message: str) -> None:
    """Raise ClauseError(message) unless the condition holds."""
    if not holds:
        raise ClauseError(message)


@dataclass(frozen=True)
class Subject:
    """An adapter under test.

    Attributes:
        adapter: In eval mode.
        samples: Two or more, of different instructions, without prompts and masks.
        reload: Builds the adapter again from a folder that ``save_base`` wrote; None if that is not known.
    """

    adapter: BackboneAdapter
    samples: tuple[Sample, ...]
    reload: Callable[[str], BackboneAdapter] | None = None

    @property
    def spec(self) -> BackboneSpec:
        return self.adapter.spec

    def batch(self, samples: Sequence[Sample] | None = None) -> Batch:
        """Collate for inference, on the base's device."""
        chosen = self.samples if samples is None else samples
        return self.adapter.collate(list(chosen), train=False).to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.adapter.module.parameters()).device

    def prefix(self, samples: Sequence[Sample] | None = None) -> Prefix:
        """The base's own prefix."""
        batch = self.batch(samples)
        return self.adapter.prefix(batch, self.adapter.features(batch, ()))

    def junk(self, prefix: Prefix, K: int = 3) -> Tensor:
        """Tokens float[B, K, D] with large random values, for places that nobody may look at."""
        generator = torch.Generator().manual_seed(0)
        tokens_BKD = 10 * torch.randn(len(prefix.tokens_BSD), K, self.spec.width, generator=generator)
        return tokens_BKD.to(prefix.tokens_BSD)

    def wrap(self) -> PixelVLA:
        """A pixel-aware model with core's own parts, on the base's device, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = PixelVLA(
                self.adapter,
                L1ActionHead(ActionHeadConfig(width=32), self.spec, horizon=HORIZON, dim=self.spec.action.dim),
                pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(levels=list(LEVELS), hidden=32), self.spec),
                prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(width=32, hidden=32), self.spec),
            )
        for part in (model.head, model.pixel_encoder, model.prompt_encoder):
            part.to(self.device)
        model.eval()
        return model

    def prompted(self) -> list[Sample]:
        """The samples with every kind of prompt, mixed: none, one kind, all kinds, with and without masks."""
        camera = self.spec.cameras[0]
        height, width = self.samples[0].images[camera].shape[:2]
        region = np.zeros((height, width), bool)
        region[height // 4 : height // 2, width // 4 : width // 2] = True
        every = (Point(0.3, 0.4), Line(((0.1, 0.2), (0.5, 0.5), (0.8, 0.3))), Box(0.2, 0.2, 0.6, 0.7), Mask(region))
        kinds = [(), *[(prompt,) for prompt in every], every]
        chosen = [self.samples[i % len(self.samples)] for i in range(len(kinds))]
        masks = [{camera: region[None]} if i % 2 else {} for i in range(len(kinds))]
        marked = [
            replace(sample, prompts={camera: prompts} if prompts else {}, masks=mask)
            for sample, prompts, mask in zip(chosen, kinds, masks, strict=True)
        ]
        return [with_actions(sample, self.spec, seed) for seed, sample in enumerate(marked)]


def example_samples(spec: BackboneSpec, seed: int = 0) -> tuple[Sample, ...]:
    """Random images that are wider than high, instructions of different lengths, and actions in [-1, 1]."""
    rng = np.random.default_rng(seed)
    instructions = ("pick up the red block", "open the drawer", "move the green cup near the blue plate, then stop")
    return tuple(
        Sample(
            images={camera: rng.integers(0, 256, (120, 160, 3), dtype=np.uint8) for camera in spec.cameras},
            instruction=instruction,
            state=np.zeros(spec.state_dim or spec.action.dim, np.float32),
            key=f"example/{number}",
        )
        for number, instruction in enumerate(instructions)
    )


def with_actions(sample: Sample, spec: BackboneSpec, seed: int, horizon: int = HORIZON) -> Sample:
    """The sample with a chunk of actions, random in [-1, 1]."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (horizon, spec.action.dim)).astype(np.float32)
    return replace(sample, actions=actions, action_valid=np.ones(horizon, bool))


def difference(found: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference, relative to the largest value wanted (to 1 if that is smaller)."""
    if found.shape != wanted.shape:
        raise ClauseError(f"shapes differ: {tuple(found.shape)} and {tuple(wanted.shape)}")
    if not wanted.numel():
        return 0.0
    gap = (found.float() - wanted.float()).abs().max().item()
    return gap / max(wanted.float().abs().max().item(), 1.0)


def expect_close(found: Tensor, wanted: Tensor, what: str) -> str:
    """Raise ClauseError if two tensors differ by more than rounding; return the difference in words."""
    gap, limit = difference(found, wanted), TOLERANCE.get(wanted.dtype, COARSE)
    expect(gap <= limit, f"{what}: they differ by {gap:.1e} of the largest value; {limit:.0e} would be rounding")
    return f"difference {gap:.1e}"
