"""The visual prompt-aware encoder: points, lines, boxes and masks as tokens, after SAM's prompt encoder.

Each token is the Fourier position of a place plus a learned embedding of what the place is; a mask adds a convolutional
embedding of its shape. An MLP takes the sum to the backbone's width.

Shapes: B batch, K tokens, M mask prompts, D model width, F feature width (the paper's D_s), h and w mask raster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelvla_core.model.config import PromptEncoderConfig
from pixelvla_core.model.position import FourierPosition
from pixelvla_core.seam.batch import PromptBatch
from pixelvla_core.types import BackboneSpec

# A line's ends differ from what lies between them, so that its direction can be read; SAM has no lines.
TOKEN_TYPES = (
    "point_negative",
    "point_positive",
    "box_top_left",
    "box_bottom_right",
    "line_start",
    "line_vertex",
    "line_end",
    "mask",
)


class VisualPromptEncoder(nn.Module):
    """SAM's scheme, ending in an MLP to the backbone's width.

    Attributes:
        paints: False; the pixels stay as they are.
    """

    paints = False

    def __init__(self, config: PromptEncoderConfig, spec: BackboneSpec) -> None:
        super().__init__()
        F = config.width
        hidden = config.hidden or spec.width
        self.position = FourierPosition(F, scale=config.scale, seed=config.seed)
        self.types = nn.Embedding(len(TOKEN_TYPES), F)
        self.shape = MaskShape(F)
        self.mlp = nn.Sequential(nn.Linear(F, hidden), nn.GELU(), nn.Linear(hidden, spec.width))

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Encode one camera's prompts: tokens float[B, K, D] and valid bool[B, K]."""
        return self.mlp(self.features(prompts)), prompts.valid_BK

    def features(self, prompts: PromptBatch) -> Tensor:
        """The paper's F_s, float[B, K, F]: what SAM's prompt encoder gives for points and boxes."""
        features_BKF = self.position(prompts.coords_BK2) + self.types(prompts.type_BK)
        return features_BKF + self._shapes(prompts) if prompts.masks_BMHW.shape[1] else features_BKF

    def _shapes(self, prompts: PromptBatch) -> Tensor:
        """float[B, K, F]: each mask's embedding in the column of its token, zero elsewhere."""
        shape_BMF = self.shape(prompts.masks_BMHW)
        columns_K = torch.arange(prompts.type_BK.shape[1], device=shape_BMF.device)
        here_BKM = prompts.mask_slot_BM[:, None, :] == columns_K[None, :, None]
        return here_BKM.to(shape_BMF.dtype) @ shape_BMF


class MaskShape(nn.Module):
    """SAM's mask downscaling (two strided convolutions, each a quarter of the area), then the mean under the mask.

    The mean runs over the mask and not over the raster, so that a small mask does not drown in its background.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 2, stride=2)
        self.norm1 = ChannelNorm(4, eps=1e-6)
        self.conv2 = nn.Conv2d(4, 16, 2, stride=2)
        self.norm2 = ChannelNorm(16, eps=1e-6)
        self.out = nn.Conv2d(16, width, 1)

    def forward(self, masks_BMHW: Tensor) -> Tensor:
        """float[B, M, F] from masks in [0, 1] whose sides are multiples of 4."""
        x = masks_BMHW.flatten(0, 1)[:, None].to(self.conv1.weight.dtype)
        weight = nn.functional.avg_pool2d(x, 4)
        x = nn.functional.gelu(self.norm1(self.conv1(x)))
        x = nn.functional.gelu(self.norm2(self.conv2(x)))
        mean = (self.out(x) * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp(min=1e-12)
        return mean.unflatten(0, masks_BMHW.shape[:2])


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of [.., C, h, w] (SAM's LayerNorm2d)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-3, -1)).movedim(-1, -3)
