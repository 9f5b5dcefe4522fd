"""The vision towers: timm ViTs whose second-to-last block is read, without norm and without pooling.

B batch, C feature width, N patches. Channels 0-2 of the pixels go to the first tower, 3-5 to the second.
Source: Prismatic VLMs (arXiv 2402.07865) and the OpenVLA checkpoints; figures in docs/openvla.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pixelvla_core.api import UserError, level_blocks
from pixelvla_core.errors import suggest

from .config import Tower


def build_tower(tower: Tower) -> VisionTransformer:
    """Build one tower with random weights.

    Raises:
        UserError: timm knows no such model, or the model takes no such argument.
    """
    try:
        return _described(tower) if tower.timm_id is None else _registered(tower, tower.timm_id)
    except TypeError as error:
        raise UserError(f"The vision tower {tower} cannot be built: {error}. Correct it in config.json.") from error


def _described(tower: Tower) -> VisionTransformer:
    kwargs = {"img_size": tower.image_size, "num_classes": 0, **tower.kwargs}
    if not kwargs.get("class_token", True):
        kwargs.setdefault("global_pool", "")  # timm's default pools the class token
    return VisionTransformer(**kwargs)


def _registered(tower: Tower, timm_id: str) -> VisionTransformer:
    if not timm.is_model(timm_id):
        name = timm_id.split(".")[0]
        raise UserError(
            f"timm {timm.__version__} knows no model {timm_id!r}.{suggest(name, timm.list_models())} Register it "
            "before loading, or describe it in config.json (`towers`, arguments of timm's VisionTransformer)."
        )
    model: Any = timm.create_model(
        timm_id, pretrained=False, num_classes=0, img_size=tower.image_size, act_layer=tower.act_layer
    )
    return model


class VisionBackbone(nn.Module):
    """One tower, or two whose features are joined on the channel axis (DINOv2 first, then SigLIP).

    The last block, the final norm and the pooling of each tower are loaded and saved, because they are part of the
    official checkpoint, but never computed.
    """

    def __init__(self, towers: Sequence[Tower]) -> None:
        super().__init__()
        self.featurizer = build_tower(towers[0])
        self.fused_featurizer = build_tower(towers[1]) if len(towers) == 2 else None

    @property
    def towers(self) -> list[VisionTransformer]:
        """The towers in the order of their channels."""
        return [self.featurizer] if self.fused_featurizer is None else [self.featurizer, self.fused_featurizer]

    @property
    def width(self) -> int:
        """Width C of the joined features."""
        return sum(tower.embed_dim for tower in self.towers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.featurizer.patch_embed.grid_size
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type in which the towers compute; pixels are cast to it."""
        return self.featurizer.patch_embed.proj.weight.dtype

    def forward(self, pixels_BCHW: Tensor, levels: Sequence[float] = ()) -> tuple[Tensor, list[Tensor]]:
        """Run every tower once.

        Args:
            pixels_BCHW: float[B, 3 * towers, H, W], each group of three normalised for its tower.
            levels: Depth fractions at which the last tower's features (SigLIP's) are wanted too.

        Returns:
            float[B, N, C] that the projector reads, and one float[B, N, C_siglip] per level.
        """
        *others, last = self.towers
        groups = torch.split(pixels_BCHW.to(self.dtype), 3, dim=1)
        if len(groups) != len(self.towers):
            raise UserError(
                f"This model reads {3 * len(self.towers)} channels; pixel_values has {pixels_BCHW.shape[1]}."
            )
        features = [
            _blocks(tower, group, [len(tower.blocks) - 2])[0] for tower, group in zip(others, groups, strict=False)
        ]
        wanted = [*level_blocks(levels, len(last.blocks) - 1), len(last.blocks) - 2]
        *level_features, final = _blocks(last, groups[-1], wanted)
        return torch.cat([*features, final], dim=-1), level_features


def _blocks(tower: VisionTransformer, pixels_BCHW: Tensor, wanted: Sequence[int]) -> list[Tensor]:
    """Return the patch tokens after each wanted block (no class or register tokens), in one pass that ends there."""
    order = sorted(set(wanted))
    found: Any = tower.forward_intermediates(
        pixels_BCHW, indices=order, norm=False, stop_early=True, output_fmt="NLC", intermediates_only=True
    )
    by_block = dict(zip(order, found, strict=True))
    return [by_block[index] for index in wanted]
