"""Step 3: where the gripper is on each frame of the discrete video, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pixelvla_core.annotate.batches import in_memory
from pixelvla_core.annotate.compose import chunks
from pixelvla_core.annotate.filters import CORRUPT, NO_GRIPPER
from pixelvla_core.annotate.models import Clip
from pixelvla_core.annotate.steps.step import MASK, Product, Step
from pixelvla_core.annotate.work import mask_columns
from pixelvla_core.errors import DataError


class Grippers(Step):
    """Chunks are independent of each other: their overlap is compared afterwards."""

    name = "grippers"
    title = "Find the gripper"
    unit = "clips"
    after = ("video",)
    schema = pa.schema(
        [
            pa.field("episode", pa.int32(), nullable=False),
            *MASK,
            pa.field("score", pa.float32(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )

    def facts(self) -> dict[str, Any]:
        video = self.work.recipe.video
        parts = {key: self.work.describe(key) for key in ("gripper", "detector", "segmenter", "tracker")}
        return {**parts, "video": [video.chunk, video.overlap, video.context]}

    def tasks(self) -> Sequence[int]:
        return range(len(self._chunks(len(self.work.workspace.read("video", 0)))))

    def _chunks(self, count: int) -> list[range]:
        video = self.work.recipe.video
        return chunks(count, video.chunk, video.overlap)

    def run(self, key: int) -> Product:
        rows = self.work.workspace.read("video", 0)
        chunk = [rows[place] for place in self._chunks(len(rows))[key]]
        close = {row["episode"]: row["close_frame"] for row in chunk}
        # Read in the order in which they lie in the dataset's files, looked at in the video's.
        read = dict(self.work.ahead_of(sorted(close), lambda episode: self.work.clip_at(episode, close[episode])))
        clips = [clip for episode in close if isinstance(clip := read[episode], Clip)]
        segments = in_memory(lambda: self.work.gripper.find(clips), "Set a smaller video.chunk. ")
        found = dict(zip((clip.episode for clip in clips), segments, strict=True))
        broken = {episode: error for episode, error in read.items() if isinstance(error, DataError)}
        return Product([self._row(episode, found.get(episode), broken.get(episode)) for episode in close])

    @staticmethod
    def _row(episode: int, segment: Any, error: DataError | None) -> dict[str, Any]:
        if error is not None:
            return {"episode": episode, **mask_columns(None), "score": 0.0, "reason": f"{CORRUPT}: {error}"}
        if segment is None or not segment.mask.any():
            return {"episode": episode, **mask_columns(None), "score": 0.0, "reason": NO_GRIPPER}
        return {"episode": episode, **mask_columns(segment.mask), "score": segment.score, "reason": ""}
