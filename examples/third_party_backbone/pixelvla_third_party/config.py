"""Options of the example backbone. Importing this needs no torch, so that listing plugins stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class ThirdPartyConfig:
    """A tiny vision-language-action model.

    Attributes:
        width: D, width of the transformer.
        layers: Blocks of the transformer.
        heads: Attention heads, in the transformer and in the vision tower.
        vision_width: C, width of the vision tower.
        vision_layers: Blocks of the vision tower.
        image_size: Side of the image in pixels.
        patch: Side of a patch in pixels.
        cameras: Names of the cameras.
        causal: Causal transformer; otherwise a prefix-LM, whose tokens all see each other.
        dropout: Dropout behind every attention and MLP.
        horizon: Steps that the base itself predicts at once.
        dim: Values in one action.
        seed: Seed of the random weights.
    """

    width: int = 48
    layers: int = 2
    heads: int = 4
    vision_width: int = 32
    vision_layers: int = 4
    image_size: int = 56
    patch: int = 14
    cameras: list[str] = field(default_factory=lambda: ["front"])
    causal: bool = True
    dropout: float = 0.0
    horizon: int = 1
    dim: int = 7
    seed: int = 0
