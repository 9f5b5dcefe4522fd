"""The protocol of a dataset part: random access to training samples, with all randomness from the caller.

Shapes: H horizon, A action dimensions.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.seam.batch import Sample


@runtime_checkable
class Dataset(Protocol):
    """A source of training samples, one per frame.

    Attributes:
        camera: Name under which the samples hold their image.
        fps: Frames per second.
        fingerprint: Hash of the content; the same data has the same everywhere.
    """

    camera: str
    fps: float
    fingerprint: str

    def __len__(self) -> int:
        """Number of frames that can be a sample."""
        ...

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        """Return one frame with what is asked for.

        Args:
            index: 0 <= index < len(self).
            horizon: H, number of actions from this frame on; ``action_valid`` is False past the end of the episode,
                where the last action is repeated.
            rng: the only source of randomness (which prompts are given, and where they point).
            images: False leaves ``Sample.images`` empty, for training from cached features. It does not change what is
                drawn from ``rng``.
        """
        ...

    def frame_key(self, index: int) -> str:
        """A name of this frame that is unique in the dataset and stays the same, for caches and messages."""
        ...

    def contract(self) -> ActionContract:
        """The contract of this dataset's actions, with statistics over all of its episodes."""
        ...
