"""Trackers: the mask on the first image carried through the next ones."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelvla_core.evaluate.config import HoldConfig


class Tracker(Protocol):
    """What every tracker does; one object follows one object of one episode at a time.

    Attributes:
        every_step: The tracker must see the image after each action, not only when the policy looks.
    """

    every_step: bool

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Begin anew with the first image, uint8[H, W, 3], and the mask on it, bool[H, W]."""
        ...

    def step(self, image: np.ndarray) -> np.ndarray:
        """Return the mask on the next image, bool[H, W]; empty if the object cannot be seen."""
        ...


class Hold:
    """Keeps the mask of the first image, as the paper does."""

    every_step = False

    def __init__(self, config: HoldConfig | None = None) -> None:
        self.config = config or HoldConfig()

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        self._mask = mask

    def step(self, image: np.ndarray) -> np.ndarray:
        return self._mask
