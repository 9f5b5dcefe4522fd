"""Models for ``bench.annotate_quality`` that know the truth: they recognise an image by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pixelvla_core.annotate.models import Clip, Detection, Models, Segment, Target
from pixelvla_core.annotations.derive import derive_box
from pixelvla_core.component import Component
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.prompts import Prompt


@dataclass(frozen=True)
class ExactConfig:
    """truth: the file that ``save_truth`` wrote."""

    truth: str = ""


@dataclass(frozen=True, eq=False)
class Truth:
    """What the simulator knows of one episode.

    Attributes:
        instruction: What the robot is told. target: the object to act on.
        images: uint8[T, H, W, 3]. targets: bool[T, H, W], where it can be seen. grippers: likewise.
    """

    instruction: str
    target: str
    images: np.ndarray
    targets: np.ndarray
    grippers: np.ndarray


def save_truth(path: Path, episodes: Sequence[Truth]) -> None:
    """Write what the models have to know."""
    np.savez_compressed(
        path,
        keys=[_key(image) for one in episodes for image in one.images],
        targets=np.concatenate([one.targets for one in episodes]),
        grippers=np.concatenate([one.grippers for one in episodes]),
        instructions=[one.instruction for one in episodes],
        names=[one.target for one in episodes],
    )


class Exact:
    """Every model of the pipeline at once."""

    every_step = True

    def __init__(self, truth: Path) -> None:
        stored = np.load(truth)
        self._places = {str(key): place for place, key in enumerate(stored["keys"])}
        self._targets, self._grippers = stored["targets"], stored["grippers"]
        self._names = dict(zip(map(str, stored["instructions"]), map(str, stored["names"]), strict=True))

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        return [Target(self._names[text]) for text in instructions]

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        return [list(self._detections(image)) for image in images]

    def _detections(self, image: np.ndarray) -> Iterator[Detection]:
        mask = self._mask(image)
        if mask.any():
            yield Detection(derive_box(mask), 1.0)

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        return self._mask(image)

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        return [Segment(self._grippers[self._places[_key(clip.image)]]) for clip in clips]

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Nothing has to be remembered."""

    def step(self, image: np.ndarray) -> np.ndarray:
        return self._mask(image)

    def _mask(self, image: np.ndarray) -> np.ndarray:
        return self._targets[self._places[_key(image)]]


def _key(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


@cache
def _loaded(truth: Path) -> Exact:
    return Exact(truth)


def exact(options: ExactConfig, models: Models | None = None) -> Exact:
    return _loaded(Path(options.truth))


_EXACT = [Component(name="exact", target="bench.annotate_exact:exact", config="bench.annotate_exact:ExactConfig")]


@hookimpl
def pixelvla_gripper_finders() -> list[Component]:
    return _EXACT


@hookimpl
def pixelvla_reasoners() -> list[Component]:
    return _EXACT


@hookimpl
def pixelvla_detectors() -> list[Component]:
    return _EXACT


@hookimpl
def pixelvla_segmenters() -> list[Component]:
    return _EXACT


@hookimpl
def pixelvla_trackers() -> list[Component]:
    return _EXACT
