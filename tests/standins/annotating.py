"""A recording of drawn scenes with exact masks, and models that know them, for tests of the annotation pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelvla_core.annotate.models import Clip, Detection, Models, Segment, Target
from pixelvla_core.annotations.derive import derive_box
from pixelvla_core.component import Component
from pixelvla_core.errors import DataError
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.prompts import Prompt

SIDE = 48
LENGTH = 12
CLOSING = 7


class Scenes:
    """Episodes in which a bar from above comes down on a square; the square then moves with it.

    Args:
        episodes: how many. never: episodes whose gripper stays open. damaged: episodes that cannot be decoded.
    """

    name, revision, camera = "scenes", "", "front"
    action_names: Sequence[str] = ("x", "y", "gripper")
    state_names: Sequence[str] = ("x", "y", "gripper_width")

    def __init__(self, episodes: int = 6, never: Sequence[int] = (), damaged: Sequence[int] = ()) -> None:
        self.count, self.never, self.damaged = episodes, tuple(never), tuple(damaged)
        self.fingerprint = hashlib.sha256(repr((episodes, self.never)).encode()).hexdigest()
        self.lengths = [LENGTH] * episodes

    def instruction(self, episode: int) -> str:
        return f"pick the square {episode % 3}"

    def actions(self, episode: int) -> np.ndarray:
        actions = np.zeros((LENGTH, 3), np.float32)
        actions[:, 2] = 1.0
        if episode not in self.never:
            actions[CLOSING:, 2] = 0.0
        return actions

    def states(self, episode: int) -> np.ndarray:
        states = self.actions(episode).copy()
        states[:, 2] *= 0.08
        return states

    def frames(self, episode: int, frames: Sequence[int]) -> list[np.ndarray]:
        if episode in self.damaged:
            raise DataError(f"The images of episode {episode} cannot be read.")
        return [self.frame(episode, frame) for frame in frames]

    def frame(self, episode: int, frame: int) -> np.ndarray:
        """Draw one image, uint8[SIDE, SIDE, 3]; the first pixel says which it is."""
        image = np.full((SIDE, SIDE, 3), 200, np.uint8)
        image[self.square(episode, frame)] = (200, 30, 30)
        image[self.gripper(episode, frame)] = (20, 20, 20)
        image[0, 0] = (episode % 256, frame, episode // 256)
        return image

    def square(self, episode: int, frame: int) -> np.ndarray:
        """The square's exact mask."""
        rng = np.random.default_rng(episode)
        top, left = rng.integers(18, 30, 2)
        top -= max(0, frame - CLOSING)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top : top + 8, left : left + 8] = True
        return mask & ~self.gripper(episode, frame)

    def gripper(self, episode: int, frame: int) -> np.ndarray:
        """The bar's exact mask: it covers the upper half of the square when it closes."""
        rng = np.random.default_rng(episode)
        top, left = rng.integers(18, 30, 2)
        end = int(top) - max(0, CLOSING - frame) - max(0, frame - CLOSING)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[max(0, end - 6) : max(0, end + 4), left - 2 : left + 10] = True
        return mask

    def whence(self, image: np.ndarray) -> tuple[int, int]:
        """Episode and frame of an image."""
        low, frame, high = map(int, image[0, 0])
        return high * 256 + low, frame


class Oracle:
    """Every model of the pipeline at once, with exact answers."""

    every_step = True

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        return [Target(text.removeprefix("pick the ")) for text in instructions]

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        return [[Detection(derive_box(self._mask(image)), 0.9)] for image in images]

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        return self._mask(image)

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        return [Segment(self.scenes.gripper(*self.scenes.whence(clip.image)), 0.8) for clip in clips]

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        pass

    def step(self, image: np.ndarray) -> np.ndarray:
        return self._mask(image)

    def _mask(self, image: np.ndarray) -> np.ndarray:
        return self.scenes.square(*self.scenes.whence(image))


@dataclass(frozen=True)
class ScenesConfig:
    """What is drawn."""

    episodes: int = 6
    never: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class OracleConfig:
    """The oracle must know the scenes."""

    episodes: int = 6


def recording(options: ScenesConfig, dataset: str, camera: str | None) -> Scenes:
    return Scenes(options.episodes, options.never, options.damaged)


def oracle(options: OracleConfig, models: Models | None = None) -> Oracle:
    return Oracle(Scenes(options.episodes))


_ORACLE = [Component(name="exact", target="annotating:oracle", config="annotating:OracleConfig")]


@hookimpl
def pixelvla_recordings() -> list[Component]:
    return [Component(name="scenes", target="annotating:recording", config="annotating:ScenesConfig")]


@hookimpl
def pixelvla_gripper_finders() -> list[Component]:
    return _ORACLE


@hookimpl
def pixelvla_reasoners() -> list[Component]:
    return _ORACLE


@hookimpl
def pixelvla_detectors() -> list[Component]:
    return _ORACLE


@hookimpl
def pixelvla_segmenters() -> list[Component]:
    return _ORACLE


@hookimpl
def pixelvla_trackers() -> list[Component]:
    return _ORACLE
