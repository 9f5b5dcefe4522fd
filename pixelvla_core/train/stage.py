"""What one stage trains, and what one of its forward passes computes."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pixelvla_core.errors import UserError

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.recipe import Stage
    from pixelvla_core.seam.backbone import NativeBackbone
    from pixelvla_core.seam.batch import Batch, Features
    from pixelvla_core.seam.prefix import Past

OWN = ("pixel_encoder", "prompt_encoder", "head")


class Objective(nn.Module):
    """The loss of a stage as a module's forward, so that DDP and FSDP can wrap it.

    Args:
        model: With the stage's freeze plan applied.
        stage: From the recipe.
        autograd: Run a frozen trunk with autograd all the same; only to measure what leaving it out saves.
    """

    def __init__(self, model: PixelVLA, stage: Stage, *, autograd: bool = False) -> None:
        super().__init__()
        self.model, self.stage = model, stage
        self.only_head = trains_only_head(model, stage) and not autograd

    def forward(self, batch: Batch, features: Features | None = None, past: Past | None = None) -> Tensor:
        """The mean loss of a batch, float32."""
        assert batch.actions_BHA is not None, "a training batch has actions"
        with precision(self.stage, batch.actions_BHA.device.type):
            if self.stage.objective == "native":
                prefix = self.model.prefix(batch, features)
                return cast("NativeBackbone", self.model.backbone).native_loss(prefix, batch).float()
            if past is None and self.only_head:
                # Nothing before the head's queries learns: its keys and values are all that they need of it.
                past = self.model.prefill(batch, features)
                features = None
            loss = self.model.loss(batch, features=features, past=past)
            return loss.float() + self._touch()

    def _touch(self) -> Tensor | float:
        """Zero that depends on our learning parameters, so that each has a gradient in every step.

        A batch without prompts leaves the encoders out; processes that shard or reduce gradients must still agree
        on which there are.
        """
        ours = [getattr(self.model, name) for name in OWN if getattr(self.model, name) is not None]
        parameters = [p for part in ours for p in part.parameters() if p.requires_grad]
        return sum((0.0 * p.flatten()[0].float() for p in parameters), 0.0)


def precision(stage: Stage, device: str) -> AbstractContextManager:
    """The context in which a stage computes."""
    return nullcontext() if stage.precision == "float32" else torch.autocast(device, dtype=torch.bfloat16)


def trains_only_head(model: PixelVLA, stage: Stage) -> bool:
    """Whether all that learns are the head and its queries, which then run behind a frozen prefix."""
    return set(stage.train) == {"head"} and stage.objective == "head" and "hidden" in model.head.requires


def checkpoint_gradients(module: nn.Module, on: bool) -> None:
    """Let the base's transformer recompute activations in the backward pass instead of keeping them, or no longer.

    Raises:
        UserError: it shall, and the base offers no ``gradient_checkpointing_enable``.
    """
    ways = (getattr(part, f"gradient_checkpointing_{'enable' if on else 'disable'}", None) for part in module.modules())
    switch = next(filter(callable, ways), None)
    if switch is not None:
        asked = {"gradient_checkpointing_kwargs": {"use_reentrant": False}} if on else {}
        # transformers offers two ways to recompute; LeRobot has the one that is meant here, and no choice.
        switch(**(asked if asked.keys() <= inspect.signature(switch).parameters.keys() else {}))
    elif on:
        raise UserError(
            "The stage sets grad_checkpointing, but this backbone's module offers no gradient_checkpointing_enable(). "
            "Set grad_checkpointing: false, or lower batch_size and raise grad_accum instead."
        )
