"""Models for ``bench.annotate``: some that cost nothing, and one that costs processor time as real ones do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pixelvla_core.annotate.models import Clip, Detection, Models, Segment, Target
from pixelvla_core.component import Component
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.prompts import Box, Prompt

_WIDE, _LAYERS = 384, 12
"""Of the tracker that works."""
_WAY = 8
"""Places that the object of the free models goes through."""


@dataclass(frozen=True)
class FreeConfig:
    """Models that cost nothing have no options."""


@cache
def discs(shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """An object's mask in several places, bool[H, W] each; a hand's breadth of an image's side wide."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    radius = 0.07 * height
    places = [(0.5 * height + step, 0.5 * width) for step in range(_WAY)]
    return tuple((y - row) ** 2 + 0.8 * (x - column) ** 2 < radius**2 for row, column in places)


class Free:
    """Every model of the pipeline at once: always the same answers, made in advance."""

    every_step = True

    def __init__(self) -> None:
        self._step = 0

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        return [Target("red cup") for _ in instructions]

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        return [[Detection(Box(0.4, 0.4, 0.6, 0.6), 0.9)] for _ in images]

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        return discs(image.shape[:2])[0]

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        return [Segment(discs(clip.image.shape[:2])[0]) for clip in clips]

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        self._step = 0

    def step(self, image: np.ndarray) -> np.ndarray:
        self._step += 1
        return discs(image.shape[:2])[self._step % _WAY]


class Busy(Free):
    """A tracker that works on each frame for about ten milliseconds, as a small network on a CPU does."""

    def __init__(self) -> None:
        super().__init__()
        self._weights = np.random.default_rng(0).normal(size=(_WIDE, _WIDE)).astype(np.float32) / _WIDE**0.5

    def step(self, image: np.ndarray) -> np.ndarray:
        values = self._weights
        for _ in range(_LAYERS):
            values = np.tanh(values @ self._weights)
        return super().step(image)


def busy(options: FreeConfig) -> Busy:
    return Busy()


def free(options: FreeConfig, models: Models | None = None) -> Free:
    return Free()


_FREE = [Component(name="free", target="bench.annotate_parts:free", config="bench.annotate_parts:FreeConfig")]


@hookimpl
def pixelvla_gripper_finders() -> list[Component]:
    return _FREE


@hookimpl
def pixelvla_reasoners() -> list[Component]:
    return _FREE


@hookimpl
def pixelvla_detectors() -> list[Component]:
    return _FREE


@hookimpl
def pixelvla_segmenters() -> list[Component]:
    return _FREE


@hookimpl
def pixelvla_trackers() -> list[Component]:
    works = Component(name="busy", target="bench.annotate_parts:busy", config="bench.annotate_parts:FreeConfig")
    return [*_FREE, works]
