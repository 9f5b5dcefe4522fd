"""Options of the SmolVLA backbone. Importing this needs no torch, so that listing plugins stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class SizeConfig:
    """The small SmolVLA with random weights that is built if no weights are named.

    Attributes:
        width: D, width of the language model.
        layers: Layers of the language model before SmolVLA cuts it.
        kept_layers: Layers that SmolVLA keeps, the first ones.
        heads: Attention heads; there are half as many key-value heads.
        vision_width: C, width of the vision tower.
        vision_layers: Blocks of the vision tower.
        image_size: Side of the image in pixels.
        patch: Side of a patch in pixels.
        shuffle: Patches along each side that the connector makes one token of.
        horizon: Steps that the expert predicts at once.
        dim: Values in one action, and in the state.
        seed: Seed of the random weights.
    """

    width: int = 64
    layers: int = 3
    kept_layers: int = 2
    heads: int = 4
    vision_width: int = 32
    vision_layers: int = 4
    image_size: int = 64
    patch: int = 8
    shuffle: int = 2
    horizon: int = 5
    dim: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kept_layers > self.layers:
            raise ValueError(f"kept_layers is {self.kept_layers}, but the language model has {self.layers} layers")
        if self.image_size % (self.patch * self.shuffle):
            raise ValueError(f"image_size is {self.image_size}, not a multiple of {self.patch} x {self.shuffle}")


@dataclass(kw_only=True)
class SmolVLAConfig:
    """LeRobot's SmolVLA.

    Attributes:
        vlm: The SmolVLM that the checkpoint was made from, a folder or an id on the Hugging Face hub: its configuration
            and its tokenizer are read, not its weights. Left out: the folder `vlm` beside the weights, otherwise the
            one that the checkpoint names.
        cameras: The data's names of the cameras, in the order of the checkpoint's; fewer than it has will do. Left
            out: the checkpoint's own names.
        fixed_noise: Start the base's own sampling from the same noise every time, so that it can be repeated.
        size: What is built without weights.
    """

    vlm: str = ""
    cameras: list[str] = field(default_factory=list)
    fixed_noise: bool = False
    size: SizeConfig = field(default_factory=SizeConfig)
