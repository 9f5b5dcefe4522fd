"""What both detectors share: batches of images of one size, and raw boxes turned into detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import batched
from typing import TYPE_CHECKING

import numpy as np

from pixelvla_core.annotate.models import Detection
from pixelvla_core.api import Box
from pixelvla_segment.large.config import DetectorConfig
from pixelvla_segment.large.device import device_of, images_at_once
from pixelvla_segment.large.sam import check_image

if TYPE_CHECKING:
    from torch import Tensor


def words_of(mask_BL: Tensor, length: int) -> Tensor:
    """Which tokens are words, bool[B, length]: not the padding, nor the first, nor the full stop and the end."""
    import torch

    place = torch.arange(length, device=mask_BL.device)
    return (place >= 1) & (place < mask_BL.sum(1, keepdim=True) - 2)


class TextDetector:
    """Finds what texts name on images of any sizes; subclasses do so on images of one size."""

    config: DetectorConfig

    def detect(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> list[list[Detection]]:
        """Return for each image, uint8[H, W, 3], what fits its own text, the surest first; nothing for an empty text.

        Raises:
            UserError: an image is of another type.
        """
        for image in images:
            check_image(image)
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, (image, text) in enumerate(zip(images, texts, strict=True)):
            if text.strip(" ."):
                groups[image.shape].append(number)
        found: list[list[Detection]] = [[] for _ in images]
        most = images_at_once(self.config.images_at_once, device_of(self.config.device))
        for group in groups.values():  # padding to a common size would change what is found
            for numbers in batched(group, most):
                made = self.detect_alike([images[number] for number in numbers], [texts[number] for number in numbers])
                for number, each in zip(numbers, made, strict=True):
                    found[number] = each
        return found

    def detect_alike(self, images: list[np.ndarray], texts: list[str]) -> list[list[Detection]]:
        """Return what is found on images of one size, which all have a text."""
        raise NotImplementedError


def caption(text: str) -> str:
    """Return a text as Grounding DINO was trained on it: lower case, with a full stop."""
    text = text.lower().strip()
    return text if text.endswith(".") else text + "."


def detections(boxes: Tensor, probabilities: Tensor, words: Tensor, config: DetectorConfig) -> list[Detection]:
    """Keep what is sure enough, the surest first.

    Args:
        boxes: float[Q, 4], centre and size in [0, 1].
        probabilities: float[Q, T], how well each box fits each token of the text; 0 where there is none.
        words: bool[T], which tokens are words; a box that fits none of them is dropped.
    """
    import torch
    from torchvision.ops import box_convert, nms

    scores = probabilities.max(1).values
    fits = (probabilities * words).max(1).values > config.text_threshold
    kept = torch.nonzero((scores > config.threshold) & fits)[:, 0]
    corners = box_convert(boxes[kept].float(), "cxcywh", "xyxy").clamp(0, 1)
    scores = scores[kept].float()
    best = nms(corners, scores, config.overlap) if config.overlap < 1 else scores.argsort(descending=True, stable=True)
    pairs = zip(corners[best].cpu().numpy().astype(float), scores[best].cpu().numpy().astype(float), strict=True)
    return [Detection(Box(*map(float, box)), float(score)) for box, score in pairs if _encloses(box)][: config.most]


def _encloses(box: np.ndarray) -> bool:
    return bool(box[0] < box[2] and box[1] < box[3])
