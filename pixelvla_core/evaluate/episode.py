"""One episode: look, ask the policy elsewhere, act, until it ends.

A rollout never calls the policy, so that one batched call can serve many of them.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from pixelvla_core.evaluate import user
from pixelvla_core.evaluate.films import Film
from pixelvla_core.evaluate.records import Job, Record
from pixelvla_core.evaluate.statistics import overlap
from pixelvla_core.evaluate.trackers import Tracker
from pixelvla_core.prompts import Prompt
from pixelvla_core.seam.batch import Sample

if TYPE_CHECKING:
    import gymnasium as gym


class Segmenter(Protocol):
    """From a prompt to a mask."""

    def segment(self, image: np.ndarray, prompts: tuple[Prompt, ...]) -> np.ndarray:
        """Return the mask of what the prompts mark, bool[H, W], on an image, uint8[H, W, 3]."""
        ...


@dataclass
class Rollout:
    """One running episode.

    Args:
        job: Which one.
        env: A Gymnasium environment whose ``unwrapped`` has ``target_mask()``.
        camera: Name of its image for the policy.
        segmenter: None takes the environment's exact mask.
        tracker: A tracker that no other running episode uses.
        film: Where frames are kept, if they are.
        step_limit: Steps after which an episode of an environment without a limit of its own is cut off.
    """

    job: Job
    env: gym.Env
    camera: str
    segmenter: Segmenter | None
    tracker: Tracker
    film: Film | None = None
    step_limit: int = 1000

    def __post_init__(self) -> None:
        self._world = cast(Any, self.env.unwrapped)
        self.done = False
        self.steps = self.looks = 0
        self.reached = self.grasped = False
        self.seconds = {"env": 0.0, "policy": 0.0, "segment": 0.0, "track": 0.0}
        self._lazy = "observe" in inspect.signature(self.env.step).parameters
        with self._clock("env"):
            self.observation, self.info = self.env.reset(seed=self.job.seed)
            target = self._world.target_mask() if self.job.prompt != "none" else None
        self.instruction = str(self.info["instruction"])
        self.facts = user.plain_facts(self.info)
        self._mark(target)

    def look(self) -> Sample:
        """Return what the policy sees now."""
        self.looks += 1
        image = self._image()
        if self.prompts and self.steps and not self.tracker.every_step:
            self._track(image)
        if self.film:
            self.film.keep(image, self.mask if self.prompts else None, self.shown)
        return Sample(
            images={self.camera: image},
            instruction=self.instruction,
            state=self.observation.get("state"),
            prompts={self.camera: self.shown} if self.prompts else {},
            masks={self.camera: self.mask[None]} if self.prompts else {},
            key=f"{self.job.key}/step{self.steps}",
        )

    def act(self, actions_HA: np.ndarray) -> None:
        """Execute actions one after the other, in physical units, until they or the episode end."""
        for action_A in actions_HA:
            with self._clock("env"):
                self._step(action_A)
            self.steps += 1
            self.reached |= bool(self.info["success"])
            self.grasped |= bool(self.info.get("grasped", False))
            if self.done or self.steps >= self.step_limit:
                self.done = True
                break
            if self.prompts and self.tracker.every_step:
                self._track(self._image())

    def record(self) -> Record:
        """Return the outcome of a finished episode and write its film."""
        film = ""
        if self.film:
            self.film.keep(self._image(), self.mask if self.prompts else None, self.shown)
            film = self.film.save()
        return Record(
            job=self.job,
            instruction=self.instruction,
            success=bool(self.info["success"]),
            reached=self.reached,
            grasped=self.grasped,
            steps=self.steps,
            looks=self.looks,
            iou=self.iou,
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
            facts=self.facts,
            prompts=tuple(user.to_plain(prompt) for prompt in self.prompts),
            film=film,
        )

    def _mark(self, target: np.ndarray | None) -> None:
        """Let the user mark the target, and find the mask of what was marked."""
        self.iou: float | None = None
        self.prompts: tuple[Prompt, ...] = ()
        if target is not None:
            self.prompts = user.give(self.job.prompt, target, user.generator(self.job))
        self.shown = self.prompts
        if target is None or not self.prompts:
            return
        image = self.observation["image"]
        with self._clock("segment"):
            mask = self._segmented(image, target)
        self.iou = overlap(mask, target)
        self._first = self.mask = mask
        with self._clock("track"):
            self.tracker.start(image, mask)

    def _segmented(self, image: np.ndarray, target: np.ndarray) -> np.ndarray:
        drawn = user.mask_given(self.prompts)
        if drawn is not None:
            return drawn
        return target if self.segmenter is None else self.segmenter.segment(image, self.prompts)

    def _step(self, action_A: np.ndarray) -> None:
        step: Any = self.env.step
        options = {"observe": False} if self._lazy else {}
        self.observation, _, terminated, truncated, self.info = step(action_A, **options)
        self.done = bool(terminated or truncated)

    def _image(self) -> np.ndarray:
        """The image now; rendered only if the last step left it out."""
        if "image" not in self.observation:
            with self._clock("env"):
                self.observation = self._world.observe()
        return self.observation["image"]

    def _track(self, image: np.ndarray) -> None:
        with self._clock("track"):
            self.mask = self.tracker.step(image)
        if self.mask.any():
            self.shown = user.follow(self.prompts, self._first, self.mask)

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
