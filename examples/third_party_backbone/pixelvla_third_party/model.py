"""Somebody's vision-language-action model. It knows nothing of pixelvla: this file stands for the model you have.

Shapes: B batch, S sequence, P past tokens, D width, N patches, C vision width, H heads, W width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelvla_third_party.config import ThirdPartyConfig

BOS, PAD, VOCABULARY = 256, 257, 258  # ids below 256 are bytes


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x_BSD: Tensor, angle_BSW: Tensor | None, mask_BST: Tensor | None, past: tuple | None) -> tuple:
        """Return the output and this layer's keys and values, those of the past included."""
        q, k, v = (layer(x_BSD).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if angle_BSW is not None:
            q, k = rotate(q, angle_BSW), rotate(k, angle_BSW)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mask = None if mask_BST is None else mask_BST[:, None]
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(2)), (k, v)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BSD: Tensor, angle=None, mask=None, past=None) -> tuple[Tensor, tuple]:
        out, memory = self.attention(self.norm1(x_BSD), angle, mask, past)
        x_BSD = x_BSD + self.dropout(out)
        return x_BSD + self.dropout(self.mlp(self.norm2(x_BSD))), memory


class Tower(nn.Module):
    """A small ViT that returns the output of every block."""

    def __init__(self, config: ThirdPartyConfig) -> None:
        super().__init__()
        C, side = config.vision_width, config.image_size // config.patch
        self.patches = nn.Conv2d(3, C, config.patch, stride=config.patch)
        self.position = nn.Parameter(0.1 * torch.randn(1, side * side, C))
        self.blocks = nn.ModuleList([Block(C, config.heads, config.dropout) for _ in range(config.vision_layers)])

    def forward(self, pixels_BCHW: Tensor) -> list[Tensor]:
        x_BNC = self.patches(pixels_BCHW).flatten(2).transpose(1, 2) + self.position
        found = []
        for block in self.blocks:
            x_BNC, _ = block(x_BNC)
            found.append(x_BNC)
        return found


class TinyVLA(nn.Module):
    """Vision tower, projector, transformer, and a linear layer that reads an action from the last token."""

    def __init__(self, config: ThirdPartyConfig) -> None:
        super().__init__()
        D = config.width
        self.angles = D // config.heads
        self.tower = Tower(config)
        self.projector = nn.Linear(config.vision_width, D)
        self.embedding = nn.Embedding(VOCABULARY, D)
        self.blocks = nn.ModuleList([Block(D, config.heads, config.dropout) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(D)
        self.action = nn.Linear(D, config.horizon * config.dim)

    def transform(self, x_BSD: Tensor, position_BS: Tensor, mask_BST: Tensor, past=None) -> tuple[Tensor, tuple]:
        """Hidden states after the final norm, and every layer's keys and values."""
        angle_BSW = rotary_angles(position_BS, self.angles)
        memory = []
        for index, block in enumerate(self.blocks):
            x_BSD, kept = block(x_BSD, angle_BSW, mask_BST, None if past is None else past[index])
            memory.append(kept)
        return self.norm(x_BSD), tuple(memory)


def rotary_angles(position_BS: Tensor, width: int) -> Tensor:
    """Rotation angles float[B, S, W / 2] (RoPE, arXiv 2104.09864)."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=position_BS.device) / width)
    return position_BS[..., None] * frequency


def rotate(x_BHSW: Tensor, angle_BSW: Tensor) -> Tensor:
    """Turn pairs of channels. Sine and cosine are taken in float32: bfloat16 cannot tell the angles 100 and 100.2."""
    cos, sin = (wave[:, None].to(x_BHSW.dtype) for wave in (angle_BSW.cos(), angle_BSW.sin()))
    a, b = x_BHSW.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
