"""The multiscale pixel-aware encoder: what lies under a mask, at several depths of the vision tower, as one token.

Eq. 3 of the paper: f_i = sum(p * feature_i) / sum(p) and E_p = MLP(sum_i Linear_i(f_i)).

Shapes: B batch, M masks (= K inserted tokens), N patches, T image tokens, C feature, D model and W hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixelvla_core.errors import UserError
from pixelvla_core.model.config import PixelEncoderConfig
from pixelvla_core.model.position import FourierPosition, centroid
from pixelvla_core.seam.batch import MaskBatch
from pixelvla_core.types import BackboneSpec

POSITION_WIDTH = 128


class MultiscalePixelEncoder(nn.Module):
    """Masked means of feature levels, one token per mask.

    Three things go beyond Eq. 3, each with a switch in the config: a LayerNorm before each Linear_i, the Fourier
    position of the mask's centroid as one more term of the sum, and the mean of the base's own image tokens under the
    mask, to which the MLP adds (the anchor).

    Attributes:
        levels: Depth fractions of the levels that ``forward`` expects.
        grid: Patch rows and columns of every level.
    """

    def __init__(self, config: PixelEncoderConfig, spec: BackboneSpec) -> None:
        super().__init__()
        self.levels = tuple(config.levels)
        self.anchor = config.anchor
        self.grid = spec.grid
        hidden, C = config.hidden or spec.width, spec.level_width
        self.norms = nn.ModuleList([nn.LayerNorm(C) if config.norm else nn.Identity() for _ in self.levels])
        self.linears = nn.ModuleList([nn.Linear(C, hidden) for _ in self.levels])
        self.position = FourierPosition(POSITION_WIDTH) if config.position else None
        self.place = nn.Linear(POSITION_WIDTH, hidden) if config.position else None
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, spec.width))

    def forward(self, levels: Sequence[Tensor], masks: MaskBatch, tokens_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Pool and project.

        Args:
            levels: One float[B, N, C] per entry of ``self.levels``.
            masks: The masks of the same camera.
            tokens_BTD: The base's image tokens of the same camera.

        Returns:
            Tokens float[B, M, D], and bool[B, M] which is False for padding and for empty masks.

        Raises:
            UserError: the anchor is on, and a token does not stand for a square of patches.
        """
        weights_BMN, area_BM = self.patch_weights(masks.masks_BMHW)
        sum_BMW: Tensor | float = 0.0
        for feature_BNC, norm, linear in zip(levels, self.norms, self.linears, strict=True):
            sum_BMW = sum_BMW + linear(norm(masked_mean(feature_BNC, weights_BMN)))
        if self.position is not None and self.place is not None:
            sum_BMW = sum_BMW + self.place(self.position(centroid(masks.masks_BMHW)))
        tokens_BMD = self.mlp(sum_BMW)
        if self.anchor:
            tokens_BMD = tokens_BMD + masked_mean(tokens_BTD, self.token_weights(weights_BMN, tokens_BTD.shape[1]))
        return tokens_BMD, masks.valid_BM & (area_BM > 0)

    def patch_weights(self, masks_BMHW: Tensor) -> tuple[Tensor, Tensor]:
        """Share of each patch in each mask: float[B, M, N] that sums to 1 (to 0 for an empty mask), and the area."""
        covered_BMN = nn.functional.adaptive_avg_pool2d(masks_BMHW.float(), self.grid).flatten(2)
        area_BM = covered_BMN.sum(-1)
        return covered_BMN / area_BM.clamp(min=1e-12)[..., None], area_BM

    def token_weights(self, weights_BMN: Tensor, tokens: int) -> Tensor:
        """float[B, M, T] from float[B, M, N]: a base may make one token of s x s patches, as SmolVLA does."""
        rows, columns = self.grid
        side = math.isqrt(rows * columns // max(1, tokens))
        if side * side * tokens != rows * columns or rows % side or columns % side:
            raise UserError(
                f"The base makes {tokens} image tokens of {rows} x {columns} patches, so a token does not stand for a "
                "square of patches and a mask cannot be laid over the tokens. Set pixel_encoder.options.anchor=false."
            )
        squares = weights_BMN.unflatten(2, (rows // side, side, columns // side, side))
        return squares.sum((3, 5)).flatten(2)


def masked_mean(feature_BNC: Tensor, weights_BMN: Tensor) -> Tensor:
    """float32[B, M, C]: the mean under each mask, in float32 also where the model runs in bfloat16."""
    with torch.autocast(feature_BNC.device.type, enabled=False):
        return weights_BMN @ feature_BNC.float()
