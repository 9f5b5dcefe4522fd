"""What warming up and grounding share: their command line, and steps over random pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WARM_UP_STEPS = 100
"""Steps until the learning rate is whole."""

Losses = dict[str, Tensor]
"""What is summed and made small, by name."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        steps, batch_size: how many pictures are seen, and how many at once.
        lr, floor: the highest learning rate, and the share of it that a cosine ends at.
        weight_decay, betas: AdamW's.
        seed: of everything random.
    """

    steps: int
    batch_size: int
    lr: float
    floor: float
    weight_decay: float
    betas: tuple[float, float]
    seed: int


def arguments(doc: str | None, *, steps: int, batch_size: int, lr: float) -> argparse.Namespace:
    """The folders ``start`` and ``out``, the file ``pictures``, and the options with these defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def fit(
    losses: Callable[[np.ndarray, np.random.Generator], tuple[Losses, Losses]],
    parts: Iterable[nn.Module],
    pictures: int,
    plan: Schedule,
    *,
    every: int,
) -> None:
    """Train the parts of ``parts`` that do not rest on random rows of ``pictures``.

    Args:
        losses: gives for these rows what to make small, and figures that are only shown.
        parts: modules; their weights that require no gradient rest.
        pictures: how many rows there are.
        plan: how long and how fast.
        every: how many steps lie between two lines of the log.
    """
    weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay, fused=True)
    warm = min(WARM_UP_STEPS, plan.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / warm) * max(plan.floor, 0.5 * (1 + np.cos(np.pi * s / plan.steps)))
    )
    rng, start = np.random.default_rng(plan.seed), time.time()
    for step in range(1, plan.steps + 1):
        small, shown = losses(rng.integers(0, pictures, plan.batch_size), rng)
        sum(small.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % every == 0 or step == plan.steps:
            rate = step * plan.batch_size / (time.time() - start)
            print(f"step {step}/{plan.steps}  {rate:.0f} pictures/s  {words(small | shown)}", flush=True)


def words(losses: Losses) -> str:
    """Losses as one line."""
    return "  ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
