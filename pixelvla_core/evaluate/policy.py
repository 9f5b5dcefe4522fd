"""What drives an episode: anything that turns samples into chunks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pixelvla_core.seam.batch import Sample

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA


class Policy(Protocol):
    """A policy; ``PixelVLA`` is one."""

    @property
    def camera(self) -> str:
        """Name of the camera it looks through."""
        ...

    def act(self, samples: Sequence[Sample]) -> np.ndarray:
        """Return the next actions for each sample in physical units, float[B, H, A]."""
        ...


def load_run(checkpoint: Path, device: str) -> Policy:
    """Load a model on one device; on the CPU it computes with one thread, for several workers share the cores."""
    import torch

    from pixelvla_core.checkpoint import load

    if device == "cpu":
        torch.set_num_threads(1)
    return lighter(load(checkpoint, device=device).model)


def lighter(model: PixelVLA) -> PixelVLA:
    """Add LoRA to the base's weights where they are float32, so that rounding is all that changes."""
    import torch

    from pixelvla_core.model import lora

    found = [layer.get_base_layer().weight for layer in lora.layers(model.base).values()]
    if not found or any(weight.dtype != torch.float32 for weight in found):
        return model
    images = {camera: np.zeros((64, 64, 3), np.uint8) for camera in model.backbone.spec.cameras}
    blank = Sample(images=images, instruction="move")
    batch = model.collate([blank], train=False).to(model.device)
    lora.merge(model.base, lambda: model.predict(batch))
    lora.remove(model.base)
    return model
