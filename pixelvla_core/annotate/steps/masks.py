"""Step 7: the mask through time, the last filter, and the rows of the sidecar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, groupby, repeat
from typing import Any

import numpy as np

from pixelvla_core.annotate.batches import ahead, in_memory
from pixelvla_core.annotate.filters import CORRUPT, change_reason
from pixelvla_core.annotate.steps.step import Product, Step
from pixelvla_core.annotate.work import mask_of
from pixelvla_core.annotations.derive import Inner, derive_box, derive_line, derive_point, extent
from pixelvla_core.annotations.episodes import EPISODE_SCHEMA
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, FAILED, OK, REVIEW, Annotation
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.errors import DataError
from pixelvla_core.recipe.construct import to_plain

_READ = 16
"""Frames that are decoded at once."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Some frames of an episode, or why they cannot be read."""

    episode: int
    images: list[np.ndarray] | DataError


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

    def run(self, key: int) -> Product:
        shard, known = self.work.shards[key], self.work.workspace.read("objects", key)
        followed = [found["episode"] for found in known if self._is_followed(found)]
        rows: list[Annotation] = []
        notes = []
        with closing(ahead(self._pieces(followed))) as pieces:
            groups = groupby(pieces, lambda piece: piece.episode)
            for found in known:
                made, reason = self._episode(found, next(groups)[1] if self._is_followed(found) else ())
                rows += made
                notes.append(self._note(found, reason))
        return Product(notes, lambda: self.writer().write(shard, rows))

    def writer(self) -> SidecarWriter:
        """The writer of the sidecar that all shards of this annotation go to."""
        work = self.work
        return SidecarWriter(work.job.out, work.header, work.episodes, work.recipe.episodes_per_shard)

    def _is_followed(self, found: dict[str, Any]) -> bool:
        return self.work.recipe.tracker is not None and not found["reason"]

    def _pieces(self, episodes: Sequence[int]) -> Iterator[Piece]:
        """All frames of some episodes, one after the other; of a damaged one up to where it cannot be read."""
        recording = self.work.recording
        for episode in episodes:
            length = recording.lengths[episode]
            for first in range(0, length, _READ):
                try:
                    yield Piece(episode, recording.frames(episode, range(first, min(first + _READ, length))))
                except DataError as error:
                    yield Piece(episode, error)
                    break

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

    def _episode(self, found: dict[str, Any], pieces: Iterable[Piece]) -> tuple[list[Annotation], str]:
        """Return the rows of one episode, and why it is discarded ("" if it is not)."""
        mask, reason = mask_of(found), found["reason"]
        if mask is None:
            return [self._rows(found)(0, None)], reason
        first = self._rows(found)(0, mask)
        if reason:
            return [replace(first, status=REVIEW)], reason
        # A tracker that failed for lack of memory may remember half a frame: a new one begins with the first.
        sources = chain([pieces], repeat(self._pieces([found["episode"]])))
        try:
            rows = in_memory(lambda: self._followed(found, mask, next(sources)), "Take another tracker. ")
        except DataError as error:
            return [replace(first, status=REVIEW)], f"{CORRUPT}: {error}"
        if reason := change_reason([row.mask.area if row.mask else 0 for row in rows], self.work.recipe.filters):
            rows = [row if row.status == ABSENT else replace(row, status=REVIEW) for row in rows]
        return rows, reason

    def _followed(self, found: dict[str, Any], mask: np.ndarray, pieces: Iterable[Piece]) -> list[Annotation]:
        """Return the rows of an episode, of its first frame alone without a tracker."""
        row, tracker = self._rows(found), None
        rows = [row(0, mask)]
        for piece in pieces:
            if isinstance(piece.images, DataError):
                raise piece.images
            for image in piece.images:
                if tracker is None:
                    tracker = self.work.tracker()
                    tracker.start(image, mask)
                else:
                    rows.append(row(len(rows), tracker.step(image)))
        return rows

    def _rows(self, found: dict[str, Any]) -> Callable[[int, np.ndarray | None], Annotation]:
        """What makes the rows of one episode, frame by frame; its prompts come from one seed."""
        recipe = self.work.recipe
        rng = np.random.default_rng([recipe.seed, found["episode"]])
        facts = {
            "episode": found["episode"],
            "camera": self.work.recording.camera,
            "target": found["target"],
            "score": float(found["score"]),
            "source": "pixelvla annotate",
        }

        def row(frame: int, mask: np.ndarray | None) -> Annotation:
            part = (0, 0, 0, 0) if mask is None else extent(mask)
            if mask is None or part[0] == part[1]:
                return Annotation(**facts, frame=frame, status=FAILED if mask is None else ABSENT)
            inner = Inner(mask, part)
            return Annotation(
                **facts,
                frame=frame,
                status=OK,
                mask=Rle.encode(mask, part),
                box=derive_box(mask, part),
                points=tuple(derive_point(mask, rng, inner) for _ in range(recipe.points)),
                lines=tuple(derive_line(mask, rng, inner) for _ in range(recipe.lines)),
            )

        return row
