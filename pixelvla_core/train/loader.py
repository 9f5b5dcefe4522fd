"""Batches, made in the background by processes whose randomness depends on the position alone.

Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_all_start_methods
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from pixelvla_core.errors import UserError
from pixelvla_core.model.collate import collate_actions
from pixelvla_core.seam.batch import Batch, Features, Sample
from pixelvla_core.seam.prefix import Past
from pixelvla_core.train.cache import Cache, frame_rng, seen
from pixelvla_core.train.interrupt import Interrupt
from pixelvla_core.train.order import Order, Slot

if TYPE_CHECKING:
    from pixelvla_core.data.dataset import Dataset as Data
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.recipe import Stage


@dataclass(frozen=True)
class Item:
    """What one forward pass reads."""

    batch: Batch
    features: Features | None = None
    past: Past | None = None

    def on(self, device: torch.device) -> tuple[Batch, Features | None, Past | None]:
        """The same on a device, as the objective's arguments."""
        features = None if self.features is None else self.features.to(device)
        return self.batch.to(device), features, None if self.past is None else self.past.to(device)


@dataclass(frozen=True)
class Source(Dataset):
    """From the number of a forward pass to its batch."""

    data: Data
    model: PixelVLA
    stage: Stage
    order: Order
    rank: int = 0
    world: int = 1
    cache: Cache | None = None

    def __getitem__(self, number: int) -> Item | UserError:
        """An error comes back as a value: DataLoader would bury its one paragraph in a traceback."""
        try:
            return self.item(Slot(number, self.rank, self.world))
        except UserError as error:
            return error

    def item(self, slot: Slot) -> Item:
        """Draw the samples, collate them, and read what is cached of them."""
        self.order.seed_collate(slot)
        positions = self.order.positions(slot, self.stage.batch_size)
        indices = [self.order.index(position) for position in positions]
        blind = self.cache is not None and self.cache.kind == "hidden"
        rngs = [frame_rng(i) for i in indices] if blind else [self.order.rng(position) for position in positions]
        samples = [
            self.data.sample(index, horizon=self.model.head.horizon, rng=rng, images=not blind)
            for index, rng in zip(indices, rngs, strict=True)
        ]
        if self.cache is not None and blind:
            return Item(actions_only(self.model, samples), past=self.cache.past(indices))
        # What is cached was collated without augmentation; prompts and masks must follow that image.
        train = self.cache is None
        batch = self.model.collate([seen(sample, self.stage) for sample in samples], train=train)
        return Item(batch, features=None if self.cache is None else self.cache.features(indices))


def actions_only(model: PixelVLA, samples: list[Sample]) -> Batch:
    """A batch without observations: all that the head needs beside a past."""
    actions = [s.actions for s in samples if s.actions is not None]
    actions_BHA, valid_BH = collate_actions(actions, [s.action_valid for s in samples])
    if model.contract is not None:
        actions_BHA = model.contract.normalize(actions_BHA)
    keys = tuple(sample.key for sample in samples)
    return Batch(inputs={}, geometry={}, actions_BHA=actions_BHA, action_valid_BH=valid_BH, keys=keys)


def batches(source: Source, numbers: range) -> Iterator[Item]:
    """Yield the items of consecutive forward passes.

    Raises:
        UserError: what the dataset or the collation of a batch raised.
    """
    for item in DataLoader(source, sampler=numbers, **loader_options(len(numbers))):
        if isinstance(item, UserError):
            raise item
        yield item


def loader_options(length: int) -> dict[str, Any]:
    """How a DataLoader of ready batches works in the background."""
    workers = min(default_workers(), length)
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
    if workers:
        options |= {"prefetch_factor": 2, "multiprocessing_context": "fork", "worker_init_fn": _quiet}
    return options


def default_workers() -> int:
    """One process for two processors, four at most; none where a process cannot fork."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, max(1, available // 2)) if "fork" in get_all_start_methods() else 0


def _quiet(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process; the trainer alone decides what happens then.

    When it is gone, however it ended, DataLoader's workers notice within seconds and end.
    """
    for number in Interrupt.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
