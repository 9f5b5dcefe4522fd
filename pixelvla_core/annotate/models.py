"""What the pipeline asks of its models; each is a part of its own kind, so that any of them can be replaced.

A part may also have ``identity()``, which the pipeline calls before any work starts: it returns what decides the part's
results besides its options (hub name, revision and hash of the weights), for the sidecar's manifest, and raises
``UserError`` with the command that downloads them where weights are missing. Models load on first use, not when built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from pixelvla_core.prompts import Box, Prompt


@dataclass(frozen=True)
class Detection:
    """A box in [0, 1] image coordinates, and how sure the detector is of it, in [0, 1]."""

    box: Box
    score: float


@dataclass(frozen=True, eq=False)
class Segment:
    """A mask bool[H, W], and how sure the model is of it, in [0, 1]."""

    mask: np.ndarray
    score: float = 1.0


@dataclass(frozen=True)
class Target:
    """What an instruction is about.

    Attributes:
        text: The object to grasp in words of the instruction, without its article ("yellow cup"); "" if none is named.
        reason: Why there is none.
    """

    text: str
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Clip:
    """The moment at which the gripper closes in one episode.

    Attributes:
        episode: Index of the episode.
        image: uint8[H, W, 3], the frame on which the gripper closes.
        context: Frames of the same episode, evenly spread from its first up to the one before ``image``; for finders
            that look at what moves.
    """

    episode: int
    image: np.ndarray
    context: tuple[np.ndarray, ...] = ()


@runtime_checkable
class Reasoner(Protocol):
    """From instructions to the objects that are to be grasped; built as ``target(options)``."""

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        """Return one target for each instruction."""
        ...


@runtime_checkable
class Detector(Protocol):
    """From images and texts to boxes; built as ``target(options)``."""

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        """Return for each image, uint8[H, W, 3], what fits its own text, the surest first; perhaps nothing."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """From an image and prompts to masks; built as ``target(options)``."""

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return the mask, bool[H, W], of what all prompts together mark on an image, uint8[H, W, 3]."""
        ...


@runtime_checkable
class BatchSegmenter(Segmenter, Protocol):
    """A segmenter that takes many images, each with many objects, at once, and tells how sure it is."""

    def segment_batch(
        self, images: Sequence[np.ndarray], objects: Sequence[Sequence[Sequence[Prompt]]]
    ) -> list[list[Segment]]:
        """Return for each image one segment for each of its objects, an object being the prompts that mark it."""
        ...


@dataclass(frozen=True)
class Models:
    """What a gripper finder may use of the pipeline.

    Attributes:
        detector: From text to boxes.
        segmenter: From prompts to masks.
        tracker: Makes a tracker that no other object uses (see ``pixelvla_core.evaluate.trackers.Tracker``).
        clip: The clip of an episode, for seeds; raises ``DataError`` where its gripper never closes.
    """

    detector: Detector
    segmenter: Segmenter
    tracker: Callable[[], object]
    clip: Callable[[int], Clip]


@runtime_checkable
class GripperFinder(Protocol):
    """From clips to masks of the gripper; built as ``target(options, models)`` with ``Models``."""

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        """Return where the gripper is on each clip's image, None where it is not found.

        Clips are ordered so that neighbours look alike: they can be tracked through as if they were a video.
        """
        ...


@runtime_checkable
class Recording(Protocol):
    """Episodes as they were recorded; built as ``target(options, dataset, camera)``.

    The dataset is a folder or a hub id; a camera of None means the only one.

    Attributes:
        name: The dataset's id.
        revision: Its revision on the hub, or "".
        fingerprint: Hash of its content.
        camera: The camera's name without LeRobot's prefix.
        lengths: Number of frames of each episode.
        action_names: Name of each action dimension.
        state_names: Name of each state dimension; empty without a state.
    """

    name: str
    revision: str
    fingerprint: str
    camera: str
    lengths: Sequence[int]
    action_names: Sequence[str]
    state_names: Sequence[str]

    def instruction(self, episode: int) -> str:
        """Return what the robot was told."""
        ...

    def actions(self, episode: int) -> np.ndarray:
        """Return float32[T, A]."""
        ...

    def states(self, episode: int) -> np.ndarray | None:
        """Return float32[T, S], or None without a state."""
        ...

    def frames(self, episode: int, frames: Sequence[int]) -> list[np.ndarray]:
        """Return some frames of an episode, uint8[H, W, 3] each.

        Raises:
            DataError: they cannot be decoded; names episode and file.
        """
        ...


@dataclass(frozen=True)
class Candidate:
    """One object that a detector proposed, with its mask: what the filters look at.

    Attributes:
        detection: Box and confidence.
        segment: Mask and confidence; None before it is segmented.
    """

    detection: Detection
    segment: Segment | None = field(default=None, compare=False)
