"""What the segmenters of the SAM 2 family share: images are encoded once, in a batch, for all objects on all of them.

Letters of shapes: B images, N objects, P points, M masks per object, C channels, h and w of features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import batched
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pixelvla_core.annotate.models import Segment
from pixelvla_core.api import Prompt, UserError
from pixelvla_segment.large.config import SamConfig
from pixelvla_segment.large.cues import Cue, cue_of
from pixelvla_segment.large.device import images_at_once
from pixelvla_segment.large.weights import LocalWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Queries:
    """Prompts of one form for N objects, in the model's pixels.

    Attributes:
        points: float32[N, P, 2], or None if there are none. labels: int32[N, P].
        boxes: float32[N, 4] or None.
        masks: Logits float32[N, 1, h, w] or None.
    """

    points: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None


class Network(Protocol):
    """A model and how its package calls it.

    Attributes:
        size: Side of the square that the model sees. mask_size: of its mask prompts.
        device: Where it is.
    """

    size: int
    mask_size: int
    device: torch.device

    def encode(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Return features of images, uint8[H, W, 3] each, as [B, C, h, w] for each level."""
        ...

    def decode(self, features: list[Tensor], queries: Queries, multimask: bool) -> tuple[Tensor, Tensor]:
        """Return logits float[N, M, h, w] and scores float[N, M]; row n of the features belongs to object n."""
        ...


class Sam:
    """Segments what prompts mark. Subclasses know their package.

    Raises:
        UserError: weights or package are not on this machine; says how to get them. Already when built, so that an
            evaluation that has no other sign of it ends before its first episode.
    """

    def __init__(self, config: SamConfig) -> None:
        self.config = config
        self.weights()

    def weights(self) -> LocalWeights:
        """Return where the weights are.

        Raises:
            CheckpointError: they are not on this machine.
        """
        raise NotImplementedError

    def load(self) -> Network:
        """Read the weights."""
        raise NotImplementedError

    @cached_property
    def network(self) -> Network:
        return self.load()

    def identity(self) -> dict[str, Any]:
        """Return name, revision and hashes of the weights.

        Raises:
            CheckpointError: they are not on this machine; says which command downloads them.
        """
        return {"weights": self.weights().identity()}

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
        wanted = [number for number, these in enumerate(cues) if these]
        found: list[list[Segment]] = [[] for _ in images]
        if wanted:
            made = self._segments([images[number] for number in wanted], [cues[number] for number in wanted])
            for number, segments in zip(wanted, made, strict=True):
                found[number] = segments
        return found

    def _segments(self, images: list[np.ndarray], cues: list[list[Cue]]) -> list[list[Segment]]:
        import torch

        flat = [(place, number, cue) for place, these in enumerate(cues) for number, cue in enumerate(these)]
        made: dict[tuple[int, int], Segment] = {}
        with torch.inference_mode():
            features = self._encoded(images)
            for some in _of_one_form(flat, self.config.objects_at_once):
                owners = torch.tensor([place for place, _, _ in some], device=self.network.device)
                of_each = [level.index_select(0, owners) for level in features]
                logits, scores = self._best(of_each, [cue for _, _, cue in some])
                for (place, number, _), logit, score in zip(some, logits, scores, strict=True):
                    mask = upscaled(logit, images[place].shape[:2])
                    made[place, number] = Segment(mask, float(score.clamp(0, 1)))
        return [[made[place, number] for number in range(len(these))] for place, these in enumerate(cues)]

    def _encoded(self, images: list[np.ndarray]) -> list[Tensor]:
        import torch

        most = images_at_once(self.config.images_at_once, self.network.device)
        parts = [self.network.encode(some) for some in batched(images, most)]
        return parts[0] if len(parts) == 1 else [torch.cat(level) for level in zip(*parts, strict=True)]

    def _best(self, features: list[Tensor], cues: list[Cue]) -> tuple[Tensor, Tensor]:
        """The surest mask of each object: logits float[N, h, w], and scores float[N]."""
        import torch

        several = self.config.multimask and cues[0].ambiguous
        queries = queries_of(cues, self.network)
        logits, scores = self.network.decode(features, queries, several)
        best = scores.argmax(1)
        rows = torch.arange(len(cues), device=best.device)
        return logits[rows, best].float(), scores[rows, best].float()


def check_image(image: np.ndarray) -> None:
    """Raise a UserError unless an image is uint8[H, W, 3]."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"The image is {image.dtype}{list(image.shape)}; expected uint8[height, width, 3], RGB.")


def queries_of(cues: Sequence[Cue], network: Network) -> Queries:
    """Put cues of one form together."""
    import torch

    def tensor(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(network.device)

    points, box, mask = cues[0].form
    return Queries(
        points=tensor([cue.points for cue in cues]) * network.size if points else None,
        labels=tensor([cue.labels for cue in cues]) if points else None,
        boxes=tensor([cue.box for cue in cues if cue.box is not None]) * network.size if box else None,
        masks=tensor([cue.logits(network.mask_size)[None] for cue in cues]) if mask else None,
    )


def upscaled(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return where logits, float[h, w], are above 0 at another size, bool[H, W]."""
    import torch

    large = torch.nn.functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)
    return (large[0, 0] > 0).cpu().numpy()


Flat = tuple[int, int, Cue]


def _of_one_form(flat: list[Flat], most: int) -> Iterator[tuple[Flat, ...]]:
    """Yield objects that can be decoded together: padding points would change the masks."""
    groups: dict[tuple[int, bool, bool], list[Flat]] = defaultdict(list)
    for item in flat:
        groups[item[2].form].append(item)
    for group in groups.values():
        yield from batched(group, most)
