"""AdamW and the learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from pixelvla_core.recipe import Stage


def make_optimizer(model: nn.Module, stage: Stage) -> torch.optim.AdamW:
    """AdamW over what learns; vectors (norms, biases) do not decay."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in learning)
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr, betas=(0.9, 0.95), fused=fused)


def learning_rate(stage: Stage, step: int) -> float:
    """The rate of step 0 <= step < stage.steps: linear warm-up, then the stage's schedule, towards zero at the end."""
    if step < stage.warmup_steps:
        return stage.lr * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    factors = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return stage.lr * factors[stage.schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
