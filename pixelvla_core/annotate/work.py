"""What every step of an annotation works with: the recipe, the recording, the models and the artefacts so far."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from pixelvla_core.annotate.batches import ahead
from pixelvla_core.annotate.models import Clip, Detector, GripperFinder, Models, Reasoner, Recording, Segmenter
from pixelvla_core.annotate.workspace import Workspace
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import Header
from pixelvla_core.distributions import libraries
from pixelvla_core.errors import DataError, RecipeError
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe import Annotate, Part, configure
from pixelvla_core.recipe.construct import to_plain


@dataclass(frozen=True)
class Job:
    """One annotation, as plain data that travels to workers.

    Attributes:
        recipe: the recipe's section ``annotate``, every part named.
        dataset: folder or hub id.
        out: the sidecar's folder.
    """

    recipe: Annotate
    dataset: str
    out: Path


class Work:
    """The parts of one annotation, each built when it is first used.

    Raises:
        UserError: a part is unknown, the recording cannot be read, or episodes are asked for that it does not have.
    """

    def __init__(self, job: Job, registry: Registry | None = None) -> None:
        _limit_threads()
        self.job, self.recipe = job, job.recipe
        self.registry = registry or PluginManager.load().registry
        self.recording = cast(Recording, self._build("recording", job.recipe.recording, job.dataset, job.recipe.camera))
        self.workspace = Workspace(job.out)
        self._described: dict[str, dict[str, Any]] = {}
        self.episodes = self._episodes()
        size = job.recipe.episodes_per_shard
        self.shards = [self.episodes[start : start + size] for start in range(0, len(self.episodes), size)]

    @cached_property
    def reasoner(self) -> Reasoner:
        return cast(Reasoner, self._named("reasoner"))

    @cached_property
    def detector(self) -> Detector:
        return cast(Detector, self._named("detector"))

    @cached_property
    def segmenter(self) -> Segmenter:
        return cast(Segmenter, self._named("segmenter"))

    @cached_property
    def gripper(self) -> GripperFinder:
        return cast(
            GripperFinder, self._named("gripper", Models(self.detector, self.segmenter, self.tracker, self.clip))
        )

    def tracker(self) -> Any:
        """Return a new tracker; the recipe has one."""
        return self._named("tracker")

    def clip(self, episode: int) -> Clip:
        """Return the clip of an episode whose closing frame is known.

        Raises:
            DataError: its gripper never closes, or its frames cannot be read.
        """
        shard = next((key for key, shard in enumerate(self.shards) if episode in shard), None)
        rows = [] if shard is None else self.workspace.read("closing", shard)
        close = next((row["close_frame"] for row in rows if row["episode"] == episode), None)
        if close is None:
            raise DataError(f"Episode {episode} has no frame on which the gripper closes. Take another one as a seed.")
        return self.clip_at(episode, close)

    def clip_at(self, episode: int, close: int) -> Clip:
        """Return the clip of an episode whose gripper closes on a frame."""
        spread = np.linspace(0, close, self.recipe.video.context + 1).round().astype(int)[:-1]
        frames = sorted({int(frame) for frame in spread if frame < close})
        *context, image = self.recording.frames(episode, [*frames, close])
        return Clip(episode, image, tuple(context))

    @cached_property
    def header(self) -> Header:
        """What the sidecar says of its origin; asks every part for its weights, so it fails before any work."""
        own = {*KIND_OF, "camera", "episodes", "episodes_per_shard"}
        settings = {key: value for key, value in to_plain(self.recipe).items() if key not in own}
        parts = {key: self.describe(key) for key in MODELS}
        return Header(
            dataset=self.recording.name,
            revision=self.recording.revision,
            fingerprint=self.recording.fingerprint,
            camera=self.recording.camera,
            tools={"annotate": {**parts, "settings": settings}},
        )

    def describe(self, key: str) -> dict[str, Any]:
        """What decides the results of one part: its name, options, versions, and the identity of its weights.

        Raises:
            UserError: weights are missing; says how to get them.
        """
        if key not in self._described:
            self._described[key] = self._describe(key)
        return self._described[key]

    def _describe(self, key: str) -> dict[str, Any]:
        part: Part | None = getattr(self.recipe, key)
        if part is None:
            return {}
        component = self.registry.get(KIND_OF[key], part.name)
        built = self.tracker() if key == "tracker" else getattr(self, key)
        identity: dict[str, Any] = built.identity() if hasattr(built, "identity") else {}
        versions = libraries([component.target.partition(".")[0]], in_turn=False)
        known = {"name": part.name, "options": to_plain(part.options), "versions": versions}
        return known | ({"weights": identity} if identity else {})

    def ahead_of[T](self, episodes: Sequence[int], read: Callable[[int], T]) -> Iterator[tuple[int, T | DataError]]:
        """Yield each episode with what ``read`` returns for it, read by a thread; the error where it is damaged."""
        return ahead((episode, _or_error(read, episode)) for episode in episodes)

    def _episodes(self) -> list[int]:
        count = len(self.recording.lengths)
        wanted = sorted(set(self.recipe.episodes)) or list(range(count))
        if wanted[0] < 0 or wanted[-1] >= count:
            raise RecipeError(
                f"annotate.episodes lists {wanted[0] if wanted[0] < 0 else wanted[-1]}; {self.recording.name} has "
                f"episodes 0 to {count - 1}."
            )
        return wanted

    def _named(self, key: str, *more: Any) -> Any:
        part = getattr(self.recipe, key)
        if part is None:
            raise RecipeError(f"annotate.{key} is not set. Add a layer, such as annotate/default, or {key}=NAME.")
        return self._build(key, part, *more)

    def _build(self, key: str, part: Part, *more: Any) -> Any:
        component = self.registry.get(KIND_OF[key], part.name)
        return component.build(configure(component, part.options, f"annotate.{key}.options"), *more)


def _limit_threads() -> None:
    """Let $OMP_NUM_THREADS count for OpenCV as well, whose own threads know nothing of it."""
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        import cv2

        cv2.setNumThreads(int(threads))


KIND_OF = {
    "recording": "recording",
    "gripper": "gripper_finder",
    "reasoner": "reasoner",
    "detector": "detector",
    "segmenter": "segmenter",
    "tracker": "tracker",
    "runner": "runner",
}
"""Kind of each part that the section names."""
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")
"""Those that decide the result."""


def _or_error[T](read: Callable[[int], T], episode: int) -> T | DataError:
    try:
        return read(episode)
    except DataError as error:
        return error


def digest_of(value: Any) -> str:
    """Hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def mask_columns(mask: np.ndarray | None) -> dict[str, Any]:
    """A mask, bool[H, W], as columns of an artefact; nulls for None."""
    if mask is None:
        return {"mask_height": None, "mask_width": None, "mask_counts": None}
    rle = Rle.encode(mask)
    return {"mask_height": rle.height, "mask_width": rle.width, "mask_counts": rle.counts}


def mask_of(row: dict[str, Any]) -> np.ndarray | None:
    """The mask, bool[H, W], of a row of an artefact."""
    if row["mask_counts"] is None:
        return None
    return Rle(row["mask_height"], row["mask_width"], row["mask_counts"]).decode()
