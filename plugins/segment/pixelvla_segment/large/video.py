"""The gripper finder ``video``: the frames on which grippers close, tracked through as if they were a video.

The tracker starts from a seed: an episode in which a person marked the gripper. Where the mask degenerates (nothing,
too much, or another size at once), it starts anew from the seed whose image is most like this one, and where that does
not help, from what the detector finds here. Nothing is kept between two calls of ``find`` but the seeds' own masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cv2
import numpy as np

from pixelvla_core.annotate.models import BatchSegmenter, Clip, Models, Segment
from pixelvla_core.api import Box, DataError, Point, Prompt
from pixelvla_core.evaluate.trackers import Tracker
from pixelvla_segment.large.config import Seed, VideoConfig

THUMBNAIL = 16
"""Side in pixels of the pictures by which images are compared."""


@dataclass(frozen=True, eq=False)
class Start:
    """An image on which the gripper's mask is known, and how sure it is."""

    episode: int
    image: np.ndarray
    mask: np.ndarray
    score: float


class VideoGripper:
    """Finds grippers."""

    def __init__(self, config: VideoConfig, models: Models) -> None:
        self.config, self.models = config, models

    def find(self, clips: Sequence[Clip]) -> list[Segment | None]:
        """Return where the gripper is on each clip's image, None where it is lost.

        Raises:
            DataError: a seed's mask is empty, or there are no seeds and the detector finds nothing in any clip.
        """
        follower = Follower(self.config, self.models, [*self.starts])
        found = [follower.find(clip) for clip in clips]
        if clips and not follower.starts:
            raise DataError(
                f"No {self.config.text} was found on any of {len(clips)} frames on which a gripper closes (episodes "
                f"{clips[0].episode} to {clips[-1].episode}). Give a seed, a click on the gripper in one episode: "
                f"gripper.options.seeds: [{{episode: {clips[0].episode}, point: [x, y]}}]"
            )
        return found

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """The seeds with their masks."""
        return tuple(self._start(seed) for seed in self.config.seeds)

    def _start(self, seed: Seed) -> Start:
        image = self.models.clip(seed.episode).image
        prompt: Prompt = Box(*seed.box) if seed.box else Point(seed.point[0], seed.point[1])
        mask = self.models.segmenter.segment(image, [prompt])
        if not mask.any() or mask.mean() > self.config.largest:
            raise DataError(
                f"The seed in episode {seed.episode} gives a mask of {mask.mean():.0%} of the image; expected a "
                f"gripper of at most {self.config.largest:.0%}. Put the point on the gripper, or give a box."
            )
        return Start(seed.episode, image, mask, 1.0)


class Follower:
    """Goes through clips one after the other.

    Attributes:
        starts: Where the gripper is known for sure: the seeds, and what the detector found so far.
    """

    def __init__(self, config: VideoConfig, models: Models, starts: list[Start]) -> None:
        self.config, self.models, self.starts = config, models, starts
        self._tracker: Tracker | None = None
        self._area = 0

    def find(self, clip: Clip) -> Segment | None:
        """Return where the gripper is on the next clip's image."""
        for way in (self._known, self._tracked, self._from_nearest, self._detected):
            found = way(clip)
            if found is not None:
                self._area = np.count_nonzero(found.mask)
                return found
        self._tracker = None
        return None

    def _known(self, clip: Clip) -> Segment | None:
        """The mask that a seed says itself."""
        start = next((start for start in self.starts if start.episode == clip.episode), None)
        return None if start is None else self._begin(start)

    def _tracked(self, clip: Clip) -> Segment | None:
        return None if self._tracker is None else self._stepped(clip.image)

    def _from_nearest(self, clip: Clip) -> Segment | None:
        if not self.starts:
            return None
        here = _thumbnail(clip.image)
        self._begin(min(self.starts, key=lambda start: float(np.abs(_thumbnail(start.image) - here).mean())))
        return self._stepped(clip.image)

    def _detected(self, clip: Clip) -> Segment | None:
        if not self.config.text:
            return None
        boxes = self.models.detector.detect([clip.image], [self.config.text])[0]
        if not boxes:
            return None
        segment = self._segment(clip.image, boxes[0].box)
        if not segment.mask.any() or segment.mask.mean() > self.config.largest:
            return None
        start = Start(clip.episode, clip.image, segment.mask, min(1.0, boxes[0].score * segment.score))
        self.starts.append(start)
        return self._begin(start)

    def _segment(self, image: np.ndarray, box: Box) -> Segment:
        if isinstance(self.models.segmenter, BatchSegmenter):
            return self.models.segmenter.segment_batch([image], [[[box]]])[0][0]
        return Segment(self.models.segmenter.segment(image, [box]))

    def _begin(self, start: Start) -> Segment:
        self._tracker = self._tracker or cast(Tracker, self.models.tracker())
        self._tracker.start(start.image, start.mask)
        self._area = np.count_nonzero(start.mask)
        return Segment(start.mask, start.score)

    def _stepped(self, image: np.ndarray) -> Segment | None:
        """The mask on the next image; None if it degenerated."""
        assert self._tracker is not None
        mask = self._tracker.step(image)
        score = float(getattr(self._tracker, "score", 1.0))
        area = np.count_nonzero(mask)
        if not area or mask.mean() > self.config.largest or score < self.config.least_score:
            return None
        factor = max(area, self._area) / min(area, self._area)
        return None if factor > self.config.jump else Segment(mask, score)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
