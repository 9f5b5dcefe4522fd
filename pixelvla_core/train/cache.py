"""What the frozen part of a model computes, made once and read from the disk in every later step.

``features``: image tokens and levels of the vision pass. ``hidden``: what the head needs of the whole frozen prefix,
for a stage that trains the head alone: its keys and values, so that only the head's queries run through the
transformer, or the hidden state of its last token, so that nothing does.

Shapes: B batch, L layers, G heads, S sequence, W width of a head, N patches, D model width.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pixelvla_core.annotations.reader import cache_dir
from pixelvla_core.errors import UserError
from pixelvla_core.files import existing, size
from pixelvla_core.model.lora import base_name
from pixelvla_core.prompts import Mask
from pixelvla_core.seam.batch import Batch, Features, Sample
from pixelvla_core.seam.prefix import Past
from pixelvla_core.train.fingerprint import fingerprint
from pixelvla_core.train.stage import precision, trains_only_head
from pixelvla_core.train.store import Layout, Store

if TYPE_CHECKING:
    from pixelvla_core.data.dataset import Dataset
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.recipe import Recipe, Stage

LENGTH, LAST = "length", "last"
SAY_EVERY = 10.0
"""Seconds between lines about a cache in the making."""


@dataclass(frozen=True)
class Cache:
    """A finished cache; row i belongs to sample i of the dataset."""

    kind: str
    store: Store
    cameras: tuple[str, ...]

    def features(self, indices: list[int]) -> Features:
        """The vision pass of these samples."""
        found = self.store.read(np.array(indices))
        levels = {camera: [n for n in found if n.startswith(f"level:{camera}:")] for camera in self.cameras}
        return Features(
            tokens={camera: found[f"tokens:{camera}"] for camera in self.cameras},
            levels={camera: tuple(found[name] for name in names) for camera, names in levels.items()},
        )

    def past(self, indices: list[int]) -> Past:
        """What the prefixes of these samples leave behind, padded to the longest of them."""
        found = self.store.read(np.array(indices))
        length_B = found[LENGTH]
        S = int(length_B.max())
        if LAST in found:
            return Past((), torch.arange(S) < length_B[:, None], found[LAST])
        pairs = found["layers"]
        layers = tuple((pair[:, 0, :, :S], pair[:, 1, :, :S]) for pair in pairs.unbind(1))
        return Past(layers, torch.arange(S) < length_B[:, None])


def frame_rng(index: int) -> np.random.Generator:
    """The randomness of a sample whose prefix is cached: it has the same wording and prompts in every epoch."""
    return np.random.default_rng([index])


def check_allowed(model: PixelVLA, stage: Stage) -> None:
    """Refuse a cache of something that changes while the stage runs.

    Raises:
        UserError: says what changes.
    """
    if stage.cache == "hidden" and not trains_only_head(model, stage):
        raise UserError(
            f"The stage trains {', '.join(stage.train)} and sets cache: hidden, but what lies before the head's "
            "queries may only be cached if the head alone (objective: head) is trained. Set cache: features or none."
        )
    if stage.prompts and getattr(model.prompt_encoder, "paints", False):
        raise UserError(
            "The stage sets cache, but the prompt encoder paints on the images, so they differ from one epoch to the "
            "next. Set cache: none, or prompts: false."
        )
    groups = model.backbone.spec.groups
    patterns = [re.compile(groups[group]) for group in ("vision", "projector") if group in groups]
    for name, parameter in model.base.named_parameters():
        if parameter.requires_grad and any(pattern.fullmatch(base_name(name)) for pattern in patterns):
            raise UserError(
                f"The stage sets cache: {stage.cache}, but trains {name}, which changes it. Set cache: none."
            )


class _Chunks(TorchDataset):
    """Collated batches of samples, for workers."""

    def __init__(
        self,
        model: PixelVLA,
        dataset: Dataset,
        stage: Stage,
        chunks: list[np.ndarray],
        change: Callable[[Sample], Sample] = lambda sample: sample,
    ) -> None:
        self.model, self.dataset, self.stage, self.chunks, self.change = model, dataset, stage, chunks, change

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> tuple[np.ndarray, Batch] | UserError:
        rows = self.chunks[number]
        try:
            return rows, self.model.collate([self._sample(int(row)) for row in rows], train=False)
        except UserError as error:
            return error

    def _sample(self, index: int) -> Sample:
        sample = self.dataset.sample(index, horizon=self.model.head.horizon, rng=frame_rng(index))
        return self.change(seen(sample, self.stage))


def seen(sample: Sample, stage: Stage) -> Sample:
    """What a stage sees of a sample: without ``prompts`` neither prompts nor masks."""
    return sample if stage.prompts else replace(sample, prompts={}, masks={})


def _filled(sample: Sample) -> Sample:
    """The sample with masks that cover the image: an empty mask makes no token, but another of its kind does."""
    prompts = {
        camera: tuple(Mask(np.ones_like(prompt.array)) if isinstance(prompt, Mask) else prompt for prompt in found)
        for camera, found in sample.prompts.items()
    }
    return replace(sample, prompts=prompts, masks={name: np.ones_like(masks) for name, masks in sample.masks.items()})


def open_cache(
    model: PixelVLA,
    recipe: Recipe,
    stage: Stage,
    dataset: Dataset,
    say: Callable[[str], None],
    go_on: Callable[[], None],
) -> Cache:
    """Open a stage's cache, after making whatever of it is missing or damaged.

    Args:
        model: On its device, with the stage's freeze plan applied.
        say: Prints a line. go_on: called between batches; may raise to stop.

    Raises:
        UserError: the stage may not be cached, or the disk is too small.
    """
    check_allowed(model, stage)
    folder = cache_dir() / stage.cache / fingerprint(stage.cache, model, recipe, stage, dataset)[:24]
    builder = _Builder(model, dataset, stage)
    layout = builder.layout()
    free = shutil.disk_usage(existing(folder)).free
    store = Store(folder, layout)
    missing = store.missing(range(layout.rows))
    _check_disk(folder, layout, len(missing), free, say)
    builder.fill(store, missing, say, go_on)
    return Cache(stage.cache, store, model.backbone.spec.cameras)


class _Builder:
    def __init__(self, model: PixelVLA, dataset: Dataset, stage: Stage) -> None:
        self.model, self.dataset, self.stage = model, dataset, stage
        self.longest = 0

    def layout(self) -> Layout:
        """Find the size of a row; for ``hidden`` the longest prefix that a sample of the dataset can have decides."""
        if self.stage.cache == "hidden":
            kinds = [np.array([row]) for row in self._kinds_of_text()]
            self.longest = max(int(self._past(batch).length_B.max()) for _, batch in self._batches(kinds, _filled))
        _, batch = next(self._batches([np.array([0])]))
        example = {name: tensor[0] for name, tensor in self._compute(batch).items()}
        return Layout.of(example, len(self.dataset))

    def fill(self, store: Store, missing: list[int], say: Callable[[str], None], go_on: Callable[[], None]) -> None:
        """Compute the rows that miss, in batches with fixed borders: what a row holds never depends on what misses."""
        size, total = self.stage.batch_size, len(self.dataset)
        chunks = [np.arange(start, min(start + size, total)) for start in range(0, total, size)]
        lacking = np.zeros(total, bool)
        lacking[missing] = True
        todo = [chunk for chunk in chunks if lacking[chunk].any()]
        if not todo:
            return
        say(f"Caching {self.stage.cache}: {len(todo)} of {len(chunks)} batches are to be made.")
        said = time.monotonic()
        for done, (rows, batch) in enumerate(self._batches(todo), 1):
            go_on()
            store.write(rows, self._compute(batch))
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                say(f"  {done} of {len(todo)}")
        store.flush()

    def _batches(self, rows: list[np.ndarray], *change: Callable) -> Iterator[tuple[np.ndarray, Batch]]:
        from pixelvla_core.train.loader import loader_options

        chunks = _Chunks(self.model, self.dataset, self.stage, rows, *change)
        for item in DataLoader(chunks, **loader_options(len(rows))):
            if isinstance(item, UserError):
                raise item
            yield item

    def _kinds_of_text(self) -> list[int]:
        """One sample of every instruction and number of prompts and masks."""
        found: dict[tuple, int] = {}
        for index in range(len(self.dataset)):
            sample = self.dataset.sample(index, horizon=1, rng=frame_rng(index), images=False)
            sample = seen(sample, self.stage)
            prompts = tuple(
                repr(type(p)) + str(len(getattr(p, "vertices", ()))) for ps in sample.prompts.values() for p in ps
            )
            masks = tuple(len(masks) for masks in sample.masks.values())
            found.setdefault((sample.instruction, prompts, masks), index)
        return list(found.values())

    @torch.no_grad()
    def _compute(self, batch: Batch) -> dict[str, Tensor]:
        if self.stage.cache == "hidden":
            return self._compact(self._past(batch))
        with precision(self.stage, self.model.device.type):
            features = self.model.features(batch.to(self.model.device))
        found = {f"tokens:{camera}": tokens for camera, tokens in features.tokens.items()}
        for camera, levels in features.levels.items():
            found |= {f"level:{camera}:{i}": level for i, level in enumerate(levels)}
        return found

    def _past(self, batch: Batch) -> Past:
        with torch.no_grad(), precision(self.stage, self.model.device.type):
            return self.model.prefill(batch.to(self.model.device))

    def _compact(self, past: Past) -> dict[str, Tensor]:
        """Valid tokens first, then padding up to the longest prefix; their positions are applied already.

        Raises:
            UserError: a prefix is longer than that; it would be cut.
        """
        if (length := int(past.length_B.max())) > self.longest:
            raise UserError(
                f"The stage sets cache: hidden, which makes room for {self.longest} tokens, the most that any "
                f"instruction of the data with its prompts and masks takes; but one sample takes {length}, so the "
                "backbone writes more into its prefix than these. Set cache: features or none."
            )
        if past.last_BD is not None:
            return {LAST: past.last_BD, LENGTH: past.length_B}
        order_BS = past.valid_BS.int().argsort(dim=1, descending=True, stable=True)[:, : self.longest]
        pairs_B2GSW = [torch.stack(layer, 1) for layer in past.layers]
        index = order_BS[:, None, None, :, None].expand(-1, *pairs_B2GSW[0].shape[1:3], -1, pairs_B2GSW[0].shape[-1])
        taken = torch.stack([pair.gather(3, index) for pair in pairs_B2GSW], 1)
        padding = (0, 0, 0, self.longest - taken.shape[4])
        return {"layers": torch.nn.functional.pad(taken, padding), LENGTH: past.length_B}


def _check_disk(folder: Path, layout: Layout, missing: int, free: int, say: Callable[[str], None]) -> None:
    """Print what the cache takes, and refuse what does not fit.

    Raises:
        UserError: there is too little space.
    """
    need = missing * layout.row_bytes
    say(
        f"Cache of {layout.rows} samples, {size(layout.row_bytes)} each, in {folder}: {size(need)} are to be "
        f"written, {size(free)} are free."
    )
    if need > 0.95 * free:
        raise UserError(
            f"The cache needs {size(need)}, but only {size(free)} are free at {folder}. Free some space, "
            "point PIXELVLA_CACHE to a larger disk, or set the stage's cache to none."
        )
