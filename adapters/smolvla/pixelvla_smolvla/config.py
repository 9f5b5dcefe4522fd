"""Options of the backbone. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Sizes:
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


@dataclass(frozen=True, kw_only=True)
class SmolVLAOptions:
    """Options of the backbone `smolvla`.

    Attributes:
        revision: Branch, tag or commit on the hub.
        vlm: The SmolVLM that the checkpoint was made from, a folder or an id on the hub: its configuration and its
            tokenizer are read, not its weights. By default the folder `vlm` beside the weights, or else the one that
            the checkpoint names.
        cameras: The data's names of the cameras, in the order of the checkpoint's; fewer than it has will do. By
            default the checkpoint's own names.
        state: False for robots without proprioception: zeros are read.
        state_mean: Mean of each value of the state, in the data's units; with `state_std` it replaces the statistics
            that lie beside the weights.
        state_std: Standard deviation of each value of the state.
        fixed_noise: Sample each chunk from noise that depends on the sample's key alone, so that an evaluation repeats
            whatever else runs beside it; False draws it from torch's generator, as LeRobot does.
        policy: Fields of LeRobot's `SmolVLAConfig` to change, such as `{num_steps: 5}`.
        size: What is built without weights.
    """

    RUN_TIME: ClassVar[tuple[str, ...]] = ("fixed_noise", "policy.num_steps")
    """What a finished model may be given anew: its weights mean the same under any value."""

    revision: str | None = None
    vlm: str | None = None
    cameras: list[str] = field(default_factory=list)
    state: bool = True
    state_mean: list[float] | None = None
    state_std: list[float] | None = None
    fixed_noise: bool = False
    policy: dict[str, Any] = field(default_factory=dict)
    size: Sizes = field(default_factory=Sizes)

    def __post_init__(self) -> None:
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras is {self.cameras}; expected each name once")
        if (self.state_mean is None) != (self.state_std is None):
            raise ValueError("state_mean and state_std belong together; one of them is missing")
        if self.state_mean is not None and len(self.state_mean) != len(self.state_std or ()):
            raise ValueError(f"state_mean has {len(self.state_mean)} values, state_std {len(self.state_std or ())}")
