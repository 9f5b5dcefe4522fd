"""What drives an episode: anything that turns samples into chunks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pixelvla_core.seam.batch import Sample

if TYPE_CHECKING:
    from torch import Tensor

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


def load_run(checkpoint: Path, device: str, overrides: Sequence[str] = ()) -> Policy:
    """Load a model on one device; on the CPU it computes with one thread, for several workers share the cores.

    Overrides are those of ``checkpoint.load``.
    """
    import torch

    from pixelvla_core.checkpoint import load

    if device == "cpu":
        torch.set_num_threads(1)
    return lighter(load(checkpoint, device=device, overrides=overrides).model)


def lighter(model: PixelVLA) -> PixelVLA:
    """Add LoRA to the base's weights where they are float32, so that rounding is all that changes.

    A base that acts by choosing tokens may be so near a tie that rounding tips it; its LoRA stays beside.
    """
    import torch

    from pixelvla_core.errors import UserError
    from pixelvla_core.model import lora

    found = [layer.get_base_layer().weight for layer in lora.layers(model.base).values()]
    if not found or any(weight.dtype != torch.float32 for weight in found):
        return model
    batch = model.collate([Sample.blank(model.backbone.spec)], train=False).to(model.device)

    def tried() -> Tensor:
        with torch.random.fork_rng():  # a base that draws its actions from noise draws the same twice
            torch.manual_seed(0)
            return model.predict(batch)

    try:
        lora.merge(model.base, tried)
    except UserError:
        return model
    lora.remove(model.base)
    return model
