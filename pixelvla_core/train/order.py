"""Which sample comes when, and all randomness of training, as functions of (seed, stage, position).

Nothing here has a state, so nothing has to be saved, and neither the number of loader processes nor a restart changes
what the model sees.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

import numpy as np
import torch

_ORDER, _SAMPLE, _FORWARD, _COLLATE = range(4)


@dataclass(frozen=True)
class Slot:
    """One forward pass: the ``number``-th of the stage on process ``rank`` of ``world``."""

    number: int
    rank: int = 0
    world: int = 1


class Order:
    """The order of samples in one stage: a new permutation of the dataset in every epoch.

    Args:
        length: Number of samples in the dataset.
        seed: Of the stage.
        stage: Name of the stage, so that stages with one seed differ.
    """

    def __init__(self, length: int, seed: int, stage: str) -> None:
        self.length = length
        self._key = (seed, zlib.crc32(stage.encode()))
        self._epoch = -1
        self._permutation: np.ndarray = np.empty(0, dtype=np.int64)

    def positions(self, slot: Slot, batch_size: int) -> range:
        """Positions in the endless stream of samples that one forward pass takes."""
        first = (slot.number * slot.world + slot.rank) * batch_size
        return range(first, first + batch_size)

    def index(self, position: int) -> int:
        """Index into the dataset of the sample at a position."""
        epoch, place = divmod(position, self.length)
        if epoch != self._epoch:
            self._permutation = self._generator(_ORDER, epoch).permutation(self.length)
            self._epoch = epoch
        return int(self._permutation[place])

    def rng(self, position: int) -> np.random.Generator:
        """The randomness of the sample at a position, such as the kind of its prompt."""
        return self._generator(_SAMPLE, position)

    def seed_collate(self, slot: Slot) -> None:
        """Seed what a part may draw from while the samples of one forward pass are drawn and collated."""
        self._seed_globals(_COLLATE, slot)

    def seed_forward(self, slot: Slot) -> None:
        """Seed dropout, noise and whatever else is drawn in one forward pass."""
        self._seed_globals(_FORWARD, slot)

    def _seed_globals(self, purpose: int, slot: Slot) -> None:
        seed = int(self._generator(purpose, slot.number, slot.rank).integers(2**63))
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([*self._key, *key])
