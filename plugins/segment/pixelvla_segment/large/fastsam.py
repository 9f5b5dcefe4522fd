"""The segmenter ``fastsam``: FastSAM (Zhao et al. 2023), which finds everything first and then picks what is meant.

It runs through the package ultralytics, licensed under the AGPL-3.0: read that licence before you build on it. Its
weights are a pickled file, which can run code when read: take it from its makers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pixelvla_core.annotate.models import Segment
from pixelvla_core.api import CheckpointError, Prompt
from pixelvla_core.files import sha256
from pixelvla_segment.large.config import FastSamConfig
from pixelvla_segment.large.cues import Cue, cue_of
from pixelvla_segment.large.device import device_of
from pixelvla_segment.large.sam import check_image
from pixelvla_segment.large.weights import needs

RELEASES = "https://github.com/ultralytics/assets/releases/download/v8.3.0/"


class FastSam:
    """Segments what prompts mark.

    Raises:
        UserError: the package or its weights are not on this machine; says how to get them.
    """

    def __init__(self, config: FastSamConfig | None = None) -> None:
        self.config = config or FastSamConfig()
        if find_spec("ultralytics") is None:
            raise needs("ultralytics", "fastsam", licence="AGPL-3.0")
        self._weights()

    def identity(self) -> dict[str, Any]:
        """Return name and hash of the weights.

        Raises:
            CheckpointError: they are not on this machine; says which command downloads them.
        """
        path = self._weights()
        return {"weights": {"name": path.name, "revision": "", "sha256": {path.name: sha256(path)}}}

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return the mask, bool[H, W], of what all prompts together mark on an image, uint8[H, W, 3].

        Raises:
            UserError: nothing is marked, or the image is of another type.
        """
        return self.segment_batch([image], [[prompts]])[0][0].mask

    def segment_batch(
        self, images: Sequence[np.ndarray], objects: Sequence[Sequence[Sequence[Prompt]]]
    ) -> list[list[Segment]]:
        """Return for each image, uint8[H, W, 3], a segment for each of its objects.

        Raises:
            UserError: nothing is marked for some object, or an image is of another type.
        """
        for image in images:
            check_image(image)
        cues = [[cue_of(prompts, self.config.line_points) for prompts in these] for these in objects]
        everything = self._everything(images) if any(cues) else [_nothing(image) for image in images]
        return [
            [pick(cue, masks, scores) for cue in these] for these, (masks, scores) in zip(cues, everything, strict=True)
        ]

    def _everything(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Masks bool[K, H, W] and scores float[K] of all that is on each image."""
        found = self.model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # the package reads BGR
            device=str(device_of(self.config.device)),
            imgsz=self.config.size,
            conf=self.config.confidence,
            iou=self.config.overlap,
            retina_masks=True,
            verbose=False,
        )
        return [
            _nothing(image)
            if each.masks is None
            else (each.masks.data.cpu().numpy() > 0, each.boxes.conf.float().cpu().numpy())
            for image, each in zip(images, found, strict=True)
        ]

    @cached_property
    def model(self) -> Any:
        import ultralytics

        return ultralytics.FastSAM(str(self._weights()))

    def _weights(self) -> Path:
        path = Path(self.config.weights).expanduser()
        if path.is_file():
            return path
        raise CheckpointError(
            f"The weights of FastSAM are not in {path}, and nothing is downloaded without your word. Download them: "
            f"curl -L -o {path} {RELEASES}{path.name}"
        )


def pick(cue: Cue, masks: np.ndarray, scores: np.ndarray) -> Segment:
    """Return of all masks, bool[K, H, W], the one that fits a cue best; an empty one if none fits.

    That is the one most like the box or mask, among those that hold all positive points and no negative one; if there
    are only points, the smallest of them, for a thing lies on other things.
    """
    fits = np.array([_agrees(cue, mask) for mask in masks], bool)
    if not fits.any():
        return Segment(np.zeros(masks.shape[1:], bool), 0.0)
    areas = masks.reshape(len(masks), -1).sum(1)
    if cue.box is None:
        return _chosen(masks, scores, int(np.argmin(np.where(fits, areas, np.inf))))
    likeness = np.array([_overlap(_region(cue, mask), mask) for mask in masks])
    best = int(np.argmax(np.where(fits, likeness, -1)))
    return _chosen(masks, scores, best) if likeness[best] > 0 else Segment(np.zeros(masks.shape[1:], bool), 0.0)


def _chosen(masks: np.ndarray, scores: np.ndarray, number: int) -> Segment:
    return Segment(masks[number], float(np.clip(scores[number], 0, 1)))


def _agrees(cue: Cue, mask: np.ndarray) -> bool:
    height, width = mask.shape
    columns = np.minimum((cue.points[:, 0] * width).astype(int), width - 1)
    rows = np.minimum((cue.points[:, 1] * height).astype(int), height - 1)
    return bool((mask[rows, columns] == (cue.labels > 0)).all())


def _region(cue: Cue, mask: np.ndarray) -> np.ndarray:
    """What a cue's mask or box covers on an image of the mask's size."""
    if cue.mask is not None:
        return cv2.resize(cue.mask.astype(np.uint8), mask.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert cue.box is not None
    region = np.zeros_like(mask)
    left, top, right, bottom = np.round(cue.box * [*mask.shape[::-1], *mask.shape[::-1]]).astype(int)
    region[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return region


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    both = np.count_nonzero(one & other)
    return both / max(np.count_nonzero(one | other), 1)


def _nothing(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, *image.shape[:2]), bool), np.zeros(0)
