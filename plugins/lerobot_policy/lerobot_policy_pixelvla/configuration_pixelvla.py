"""The config of the policy, registered with LeRobot as `pixelvla`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("pixelvla")
@dataclass
class PixelVLAConfig(PreTrainedConfig):
    """Options of the policy `pixelvla`.

    Attributes:
        checkpoint: A folder that `pixelvla wrap` or `pixelvla train` wrote; the policy begins with it.
        overrides: `key=value` for options of the checkpoint's parts that do not change what its weights mean, such as
            backbone.options.sampler=fast.
        chunk_size: Steps that the checkpoint's head predicts at once.
        n_action_steps: Steps of a chunk that `select_action` hands out before it looks again.
        train_groups: What learns, as in a recipe's stage: pixel, prompt, head, lora, or groups of the base.
        optimizer_lr: AdamW's rate. optimizer_weight_decay: Its decay. optimizer_grad_clip_norm: Largest gradient norm.
        normalization_mapping: Identity: the checkpoint's action contract and the base normalise by themselves.
    """

    checkpoint: str | None = None
    overrides: list[str] = field(default_factory=list)
    chunk_size: int = 8
    n_action_steps: int = 8
    train_groups: list[str] = field(default_factory=lambda: ["pixel", "prompt", "lora"])
    optimizer_lr: float = 5e-4
    optimizer_weight_decay: float = 0.0
    optimizer_grad_clip_norm: float = 1.0
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind.value: NormalizationMode.IDENTITY for kind in FeatureType}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(f"n_action_steps is {self.n_action_steps}; expected 1 to chunk_size, {self.chunk_size}")

    @property
    def observation_delta_indices(self) -> None:
        """One observation, the present one."""
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW, as in pixelvla's own training."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> None:
        """A constant rate, as in the paper."""
        return None

    def validate_features(self) -> None:
        """The checkpoint says which cameras it reads; what misses is named when a batch comes."""
