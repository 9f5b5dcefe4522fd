"""From the prompts, masks and actions of samples to padded tensors in the coordinates of the image the backbone reads.

Shapes: B batch, K prompt tokens, M masks, H horizon, A action dim, h and w mask raster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.errors import UserError
from pixelvla_core.geometry import Affine, center, coverage, warp
from pixelvla_core.model.prompt_encoder import TOKEN_TYPES
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt
from pixelvla_core.seam.batch import MaskBatch, PromptBatch

# Mask cells per patch, along each side: enough for the shape of a mask, and a whole number so that averaging the cells
# of a patch gives the patch's exact coverage.
CELLS_PER_PATCH = 4
# Less than this many covered cells is rounding at the edge of the image, not a mask.
SMALLEST = 1e-6

_TYPE = {name: index for index, name in enumerate(TOKEN_TYPES)}


@dataclass
class _Row:
    """The prompt tokens of one sample: (x, y, type) each, and the masks with the column of their token."""

    tokens: list[tuple[float, float, int]] = field(default_factory=list)
    masks: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def add(self, x: float, y: float, kind: str) -> None:
        self.tokens.append((x, y, _TYPE[kind]))

    def add_mask(self, covered: np.ndarray, place: tuple[float, float]) -> None:
        self.masks.append((covered, len(self.tokens)))
        self.add(*place, "mask")


def collate_prompts(
    rows: Sequence[Sequence[Prompt]], geometry: Sequence[Affine], grid: tuple[int, int]
) -> PromptBatch | None:
    """Put one camera's prompts into a padded batch, or return None if none of them is in the images.

    Args:
        rows: The prompts of each sample.
        geometry: One map per sample, from its image to the backbone's.
        grid: The backbone's patch rows and columns.
    """
    raster = CELLS_PER_PATCH * grid[0], CELLS_PER_PATCH * grid[1]
    found = [_tokens(prompts, affine, raster) for prompts, affine in zip(rows, geometry, strict=True)]
    K, M = max(len(row.tokens) for row in found), max(len(row.masks) for row in found)
    if K == 0:
        return None
    coords_BK2, type_BK = torch.full((len(found), K, 2), 0.5), torch.zeros(len(found), K, dtype=torch.long)
    masks_BMHW, slot_BM = torch.zeros(len(found), M, *raster), torch.full((len(found), M), -1)
    for b, row in enumerate(found):
        for k, (x, y, kind) in enumerate(row.tokens):
            coords_BK2[b, k], type_BK[b, k] = torch.tensor((x, y)), kind
        for m, (covered, slot) in enumerate(row.masks):
            masks_BMHW[b, m], slot_BM[b, m] = torch.from_numpy(covered), slot
    valid_BK = torch.arange(K) < torch.tensor([len(row.tokens) for row in found])[:, None]
    return PromptBatch(
        coords_BK2=coords_BK2, type_BK=type_BK, valid_BK=valid_BK, masks_BMHW=masks_BMHW, mask_slot_BM=slot_BM
    )


def _tokens(prompts: Sequence[Prompt], affine: Affine, raster: tuple[int, int]) -> _Row:
    row = _Row()
    for prompt in prompts:
        if isinstance(prompt, Mask):
            covered = coverage(prompt.array, affine, *raster)
            if covered.sum() > SMALLEST:
                row.add_mask(covered, center(prompt.array, affine))
        else:
            for piece in warp(prompt, affine):
                _add(row, piece)
    return row


def _add(row: _Row, prompt: Point | Line | Box) -> None:
    match prompt:
        case Point(x, y, positive):
            row.add(x, y, "point_positive" if positive else "point_negative")
        case Box(x0, y0, x1, y1):
            row.add(x0, y0, "box_top_left")
            row.add(x1, y1, "box_bottom_right")
        case Line(vertices):
            middle = ["line_vertex"] * (len(vertices) - 2)
            for (x, y), kind in zip(vertices, ["line_start", *middle, "line_end"], strict=True):
                row.add(x, y, kind)


def collate_masks(
    rows: Sequence[np.ndarray | None], geometry: Sequence[Affine], grid: tuple[int, int]
) -> MaskBatch | None:
    """Put one camera's pixel-aware masks into a padded batch, or return None if there is none.

    Args:
        rows: bool[M, height, width] of each sample, or None.
        geometry: One map per sample, from its image to the backbone's.
        grid: The backbone's patch rows and columns.
    """
    raster = CELLS_PER_PATCH * grid[0], CELLS_PER_PATCH * grid[1]
    checked = [None if row is None else _checked(row) for row in rows]
    M = max(0 if row is None else len(row) for row in checked)
    if M == 0:
        return None
    masks_BMHW = torch.zeros(len(rows), M, *raster)
    for b, (row, affine) in enumerate(zip(checked, geometry, strict=True)):
        for m, mask in enumerate(() if row is None else row):
            masks_BMHW[b, m] = torch.from_numpy(coverage(mask, affine, *raster))
    return MaskBatch(masks_BMHW=masks_BMHW, valid_BM=masks_BMHW.sum((-2, -1)) > SMALLEST)


def _checked(masks: np.ndarray) -> np.ndarray:
    array = isinstance(masks, np.ndarray)
    if not array or masks.ndim != 3 or masks.dtype != np.bool_ or 0 in masks.shape[1:]:
        found = f"shape {masks.shape} and type {masks.dtype}" if array else f"type {type(masks).__name__}"
        raise UserError(
            f"A sample's masks have {found}; expected a NumPy array, bool [masks, height, width]. "
            "Threshold a soft mask first, and give a single one as mask[None]."
        )
    return masks


def collate_actions(actions: Sequence[np.ndarray], valid: Sequence[np.ndarray | None]) -> tuple[Tensor, Tensor]:
    """float32[B, H, A] and bool[B, H]; every step is valid where a sample does not say."""
    actions_BHA = torch.from_numpy(np.stack(actions).astype(np.float32))
    rows = [np.ones(len(a), bool) if v is None else v for a, v in zip(actions, valid, strict=True)]
    return actions_BHA, torch.from_numpy(np.stack(rows))
