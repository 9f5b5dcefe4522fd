"""Sample and Batch: what goes into an adapter's collate, and what comes out.

Shapes: B batch, M masks, K prompt tokens, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.geometry import Affine
from pixelvla_core.prompts import Prompt
from pixelvla_core.types import BackboneSpec


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One observation as a dataset or an environment gives it; a training sample also has actions.

    Attributes:
        images: Camera name -> uint8[height, width, 3], upright RGB.
        instruction: What the robot shall do, in words.
        state: Proprioception in physical units, float[...], if the robot reports it.
        prompts: Camera name -> visual prompts in that image's coordinates.
        masks: Camera name -> pixel-aware masks p, bool[M, height, width]; M may be 0.
        actions: Actions in the dataset's units, float32[H, A]; core normalises them by the action contract.
        action_valid: bool[H]; False past the end of the episode.
        key: Where the sample comes from, for caches and messages, such as "tabletop/ep12/frame30".
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: np.ndarray | None = None
    prompts: Mapping[str, tuple[Prompt, ...]] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    actions: np.ndarray | None = None
    action_valid: np.ndarray | None = None
    key: str = ""

    @classmethod
    def blank(cls, spec: BackboneSpec) -> Sample:
        """An observation that a base can be tried with: black pictures, and a state of zeros."""
        images = {camera: np.zeros((64, 64, 3), np.uint8) for camera in spec.cameras}
        return cls(images=images, instruction="move", state=np.zeros(spec.state_dim or spec.action.dim, np.float32))


@dataclass(frozen=True, kw_only=True)
class _Movable:
    """A dataclass of tensors, and of mappings and tuples of them, that moves as one."""

    def to(self, device: torch.device | str) -> Self:
        def move(value: Any) -> Any:
            if isinstance(value, Tensor | _Movable):
                return value.to(device)
            if isinstance(value, Mapping):
                return {key: move(item) for key, item in value.items()}
            return tuple(move(item) for item in value) if isinstance(value, tuple) else value

        return replace(self, **{item.name: move(getattr(self, item.name)) for item in fields(self)})


@dataclass(frozen=True, kw_only=True)
class PromptBatch(_Movable):
    """The prompts of one camera for a whole batch, in the coordinates of the image that the backbone reads.

    A point is one token, a box two (its corners), a line one per vertex, a mask one.

    Attributes:
        coords_BK2: float[B, K, 2], x and y in [0, 1]; a mask's token has its centroid.
        type_BK: int[B, K], index into ``pixelvla_core.model.prompt_encoder.TOKEN_TYPES``.
        valid_BK: bool[B, K].
        masks_BMHW: float[B, M, h, w] in [0, 1], the mask prompts.
        mask_slot_BM: int[B, M]; column of the mask's token in ``coords_BK2``, -1 where there is none.
    """

    coords_BK2: Tensor
    type_BK: Tensor
    valid_BK: Tensor
    masks_BMHW: Tensor
    mask_slot_BM: Tensor


@dataclass(frozen=True, kw_only=True)
class MaskBatch(_Movable):
    """The pixel-aware masks p of one camera, in the coordinates of the image that the backbone reads.

    Attributes:
        masks_BMHW: float[B, M, h, w] in [0, 1], covered fraction of every cell of a square raster.
        valid_BM: bool[B, M]; False for padding and for masks that are empty.
    """

    masks_BMHW: Tensor
    valid_BM: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch(_Movable):
    """A collated batch. The adapter fills ``inputs`` and ``geometry``; core fills the rest.

    Attributes:
        inputs: The backbone's own tensors, such as pixel values and token ids.
        geometry: Camera -> one Affine per row: from the sample's image to the image the backbone reads.
        prompts: Camera -> PromptBatch; empty without prompts.
        masks: Camera -> MaskBatch; empty without masks.
        actions_BHA: Normalised target actions, float[B, H, A], or None.
        action_valid_BH: bool[B, H], or None.
        keys: Where each row comes from.
    """

    inputs: Mapping[str, Tensor]
    geometry: Mapping[str, tuple[Affine, ...]]
    prompts: Mapping[str, PromptBatch] = field(default_factory=dict)
    masks: Mapping[str, MaskBatch] = field(default_factory=dict)
    actions_BHA: Tensor | None = None
    action_valid_BH: Tensor | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Features(_Movable):
    """The outcome of the base model's one vision pass.

    Attributes:
        tokens: Camera -> image tokens as the transformer reads them (after the projector), float[B, N, D].
        levels: Camera -> block features at the asked depths, each float[B, N, C], N in row-major patch order.
    """

    tokens: Mapping[str, Tensor]
    levels: Mapping[str, tuple[Tensor, ...]]
