"""What drives an episode: anything that turns samples into chunks of actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pixelvla_core.seam.batch import Sample


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
    return load(checkpoint, device=device).model
