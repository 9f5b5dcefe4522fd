"""Step 7: the mask through time, the last filter, and the rows of the sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pixelvla_core.annotate.filters import CORRUPT, change_reason
from pixelvla_core.annotate.steps.step import Step
from pixelvla_core.annotate.work import mask_of
from pixelvla_core.annotations.derive import derive_box, derive_line, derive_point
from pixelvla_core.annotations.episodes import EPISODE_SCHEMA
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, FAILED, OK, REVIEW, Annotation
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.errors import DataError
from pixelvla_core.recipe.construct import to_plain

_READ = 64
"""Frames that are decoded at once."""


class Masks(Step):
    """Writes the rows of a shard into the sidecar; the artefact says what became of each episode."""

    name = "masks"
    title = "Follow them through time"
    after = ("objects",)
    schema = EPISODE_SCHEMA

    def facts(self) -> dict[str, Any]:
        recipe = self.work.recipe
        prompts = [recipe.points, recipe.lines, recipe.seed]
        return {"tracker": self.work.describe("tracker"), "prompts": prompts, "filters": to_plain(recipe.filters)}

    def run(self, key: int) -> list[dict[str, Any]]:
        rows: list[Annotation] = []
        notes = []
        for found in self.work.workspace.read("objects", key):
            annotations, reason = self._episode(found)
            rows += annotations
            notes.append(self._note(found, reason))
        self.writer().write(self.work.shards[key], rows)
        return notes

    def writer(self) -> SidecarWriter:
        """The writer of the sidecar that all shards of this annotation go to."""
        work = self.work
        return SidecarWriter(work.job.out, work.header, work.episodes, work.recipe.episodes_per_shard)

    def _note(self, found: dict[str, Any], reason: str) -> dict[str, Any]:
        return {
            "episode": found["episode"],
            "kept": not reason,
            "reason": reason,
            "close_frame": found["close_frame"],
            "region": found["region"],
            "instruction": self.work.recording.instruction(found["episode"]),
            "target": found["target"],
            "score": found["score"],
        }

    def _episode(self, found: dict[str, Any]) -> tuple[list[Annotation], str]:
        """Return the rows of one episode, and why it is discarded ("" if it is not)."""
        mask, reason = mask_of(found), found["reason"]
        if mask is None or reason:
            return [self._row(found, 0, mask, REVIEW if mask is not None else FAILED)], reason
        try:
            masks = list(self._followed(found["episode"], mask))
        except DataError as error:
            return [self._row(found, 0, mask, REVIEW)], f"{CORRUPT}: {error}"
        reason = change_reason([rle.area for rle in masks], self.work.recipe.filters)
        status = REVIEW if reason else OK
        return [self._row(found, frame, rle.decode(), status) for frame, rle in enumerate(masks)], reason

    def _followed(self, episode: int, mask: np.ndarray) -> Iterator[Rle]:
        """Yield the mask on every frame, compressed at once; only on the first one without a tracker."""
        yield Rle.encode(mask)
        if self.work.recipe.tracker is None:
            return
        tracker = self.work.tracker()
        for frame, image in self._images(episode):
            if frame == 0:
                tracker.start(image, mask)
            else:
                yield Rle.encode(tracker.step(image))

    def _images(self, episode: int) -> Iterator[tuple[int, np.ndarray]]:
        length = self.work.recording.lengths[episode]
        starts = range(0, length, _READ)
        for first, images in self.work.ahead_of(starts, lambda first: self._read(episode, first)):
            if isinstance(images, DataError):
                raise images
            yield from zip(range(first, first + len(images)), images, strict=True)

    def _read(self, episode: int, first: int) -> list[np.ndarray]:
        last = min(first + _READ, self.work.recording.lengths[episode])
        return self.work.recording.frames(episode, range(first, last))

    def _row(self, found: dict[str, Any], frame: int, mask: np.ndarray | None, status: str) -> Annotation:
        seen = mask is not None and mask.any()
        facts = {
            "episode": found["episode"],
            "frame": frame,
            "camera": self.work.recording.camera,
            "target": found["target"],
            "score": float(found["score"]),
            "source": "pixelvla annotate",
        }
        if mask is None or not seen:
            return Annotation(**facts, status=FAILED if mask is None else ABSENT)
        rng = np.random.default_rng([self.work.recipe.seed, found["episode"], frame])
        return Annotation(
            **facts,
            status=status,
            mask=Rle.encode(mask),
            box=derive_box(mask),
            points=tuple(derive_point(mask, rng) for _ in range(self.work.recipe.points)),
            lines=tuple(derive_line(mask, rng) for _ in range(self.work.recipe.lines)),
        )
