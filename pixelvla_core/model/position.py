"""Random Fourier features of image coordinates, as in SAM's prompt encoder (arXiv 2304.02643, appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierPosition(nn.Module):
    """Map (x, y) in [0, 1] to ``sin`` and ``cos`` of ``2 pi (2 c - 1) G`` with a fixed Gaussian matrix G.

    Args:
        width: Number of features; even.
        scale: Standard deviation of G.
        seed: G is drawn once from this seed and saved with the model, so it never depends on the machine.
    """

    frequencies_2F: Tensor

    def __init__(self, width: int, *, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies_2F", scale * torch.randn(2, width // 2, generator=generator))

    def forward(self, coords: Tensor) -> Tensor:
        """Return float[..., width] for float[..., 2], in float32 or, for coordinates in float64, in that."""
        # A product and a sum instead of a matmul: autocast would run the matmul in bfloat16 and some cards in TF32,
        # whose 8 or 10 bits cannot tell neighbouring pixels apart after the multiplication by 2 pi.
        signed = 2.0 * coords.to(torch.promote_types(coords.dtype, torch.float32)) - 1.0
        angle = 2.0 * math.pi * (signed[..., :, None] * self.frequencies_2F.to(signed.dtype)).sum(-2)
        return torch.cat([angle.sin(), angle.cos()], -1)


def centroid(masks_BMHW: Tensor) -> Tensor:
    """float[B, M, 2]: x and y in [0, 1] of each mask's centre of mass; the image's centre where a mask is empty."""
    masks_BMHW = masks_BMHW.float()
    H, W = masks_BMHW.shape[-2:]
    area_BM = masks_BMHW.sum((-2, -1))
    x_W = (torch.arange(W, device=masks_BMHW.device) + 0.5) / W
    y_H = (torch.arange(H, device=masks_BMHW.device) + 0.5) / H
    sum_x_BM = (masks_BMHW.sum(-2) * x_W).sum(-1)
    sum_y_BM = (masks_BMHW.sum(-1) * y_H).sum(-1)
    mean_BM2 = torch.stack([sum_x_BM, sum_y_BM], -1) / area_BM.clamp(min=1e-12)[..., None]
    return torch.where(area_BM[..., None] > 0, mean_BM2, 0.5)
