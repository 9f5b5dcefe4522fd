"""Step 6: the object's mask on the first frame, from the detection in the region proposal that is surest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pixelvla_core.annotate.batches import in_batches
from pixelvla_core.annotate.filters import CORRUPT, NO_GRIPPER, NO_TARGET, NOTHING, mask_reason
from pixelvla_core.annotate.models import BatchSegmenter, Detection, Segment
from pixelvla_core.annotate.steps.regions import edges
from pixelvla_core.annotate.steps.step import MASK, Product, Step
from pixelvla_core.annotate.steps.targets import Targets
from pixelvla_core.annotate.work import mask_columns
from pixelvla_core.errors import DataError
from pixelvla_core.prompts import Box
from pixelvla_core.recipe.construct import to_plain

_MOST = 8
"""Detections of one image that are segmented, the surest first."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The first frame of an episode, and what to look for where."""

    episode: int
    target: str
    region: Box
    image: np.ndarray


class Objects(Step):
    """Detects, segments, chooses, and gives every discarded episode its reason."""

    name = "objects"
    title = "Segment the objects"
    after = ("closing", "regions", "targets")
    schema = pa.schema(
        [
            pa.field("episode", pa.int32(), nullable=False),
            pa.field("close_frame", pa.int32()),
            pa.field("region", pa.list_(pa.float32())),
            pa.field("target", pa.string(), nullable=False),
            pa.field("box", pa.list_(pa.float32())),
            *MASK,
            pa.field("score", pa.float32(), nullable=False),
            pa.field("detections", pa.list_(pa.list_(pa.float32())), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )

    def facts(self) -> dict[str, Any]:
        parts = {key: self.work.describe(key) for key in ("detector", "segmenter")}
        return {**parts, "filters": to_plain(self.work.recipe.filters)}

    @cached_property
    def _targets(self) -> dict[str, tuple[str, str]]:
        rows = self.work.workspace.read_all("targets", Targets(self.work).tasks())
        return {row["instruction"]: (row["target"], row["reason"]) for row in rows}

    def run(self, key: int) -> Product:
        rows = {row["episode"]: row for row in self._known(key)}
        wanted = [episode for episode, row in rows.items() if not row["reason"]]
        scenes = self._scenes(rows, wanted)
        for episode, found in in_batches(self._look, scenes, self.work.recipe.batch):
            rows[episode] |= found
        return Product(list(rows.values()))

    def _known(self, key: int) -> Iterator[dict[str, Any]]:
        """What the steps before say of each episode of a shard."""
        shard = self.work.shards[key]
        regions = {row["episode"]: row for row in self.work.workspace.read("regions", 0, shard[0], shard[-1])}
        for row in self.work.workspace.read("closing", key):
            episode = row["episode"]
            target, unclear = self._targets[self.work.recording.instruction(episode)]
            proposed = regions.get(episode, {"region": None, "reason": NO_GRIPPER})
            reason = row["reason"] or proposed["reason"] or ("" if target else f"{NO_TARGET}: {unclear}".rstrip(": "))
            known = {"episode": episode, "close_frame": row["close_frame"], "region": proposed["region"]}
            yield known | {"target": target, "reason": reason, **_nothing()}

    def _scenes(self, rows: dict[int, dict[str, Any]], wanted: Sequence[int]) -> Iterator[Scene]:
        """The first frames that can be read; of the others the reason is noted."""
        recording = self.work.recording
        for episode, images in self.work.ahead_of(wanted, lambda episode: recording.frames(episode, [0])):
            if isinstance(images, DataError):
                rows[episode]["reason"] = f"{CORRUPT}: {images}"
            else:
                yield Scene(episode, rows[episode]["target"], Box(*rows[episode]["region"]), images[0])

    def _look(self, scenes: Sequence[Scene]) -> list[tuple[int, dict[str, Any]]]:
        images = [scene.image for scene in scenes]
        found = self.work.detector.detect(images, [scene.target for scene in scenes])
        found = [sorted(each, key=lambda detection: -detection.score)[:_MOST] for each in found]
        masks = self._segmented(images, found)
        return [
            (scene.episode, self._chosen(scene, detections, segments))
            for scene, detections, segments in zip(scenes, found, masks, strict=True)
        ]

    def _segmented(
        self, images: Sequence[np.ndarray], found: Sequence[Sequence[Detection]]
    ) -> Sequence[Sequence[Segment]]:
        segmenter = self.work.segmenter
        if isinstance(segmenter, BatchSegmenter):
            return segmenter.segment_batch(images, [[[each.box] for each in detections] for detections in found])
        return [
            [Segment(segmenter.segment(image, [each.box])) for each in detections]
            for image, detections in zip(images, found, strict=True)
        ]

    def _chosen(self, scene: Scene, detections: Sequence[Detection], segments: Sequence[Segment]) -> dict[str, Any]:
        """The surest detection that passes the filters; if none does, the surest one with its reason."""
        if not detections:
            return {"reason": NOTHING}
        filters = self.work.recipe.filters
        pairs = list(zip(detections, segments, strict=True))
        reasons = [mask_reason(segment.mask, each.score, scene.region, filters) for each, segment in pairs]
        place = reasons.index("") if "" in reasons else 0
        detection, segment = pairs[place]
        return {
            "box": edges(detection.box),
            **mask_columns(segment.mask if segment.mask.any() else None),
            "score": detection.score * segment.score,
            "detections": [[*edges(each.box), each.score] for each in detections],
            "reason": reasons[place],
        }


def _nothing() -> dict[str, Any]:
    return {"box": None, **mask_columns(None), "score": 0.0, "detections": []}
