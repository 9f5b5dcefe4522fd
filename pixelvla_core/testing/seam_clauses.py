"""Clauses on what crosses the seam: the spec, the batch and its geometry, the vision pass, the prefix.

Each clause takes the subject, returns what it measured in words, and raises ClauseError if it does not hold.

Shapes: B batch, S sequence, N patches, C feature width, D model width.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pixelvla_core.seam.backbone import BackboneAdapter, FlowBackbone, NativeBackbone
from pixelvla_core.seam.batch import Batch, Sample
from pixelvla_core.testing.subject import LEVELS, Subject, expect, expect_close
from pixelvla_core.types import GROUPS

_PROTOCOLS = {"hidden": BackboneAdapter, "native": NativeBackbone, "flow": FlowBackbone}


def spec(subject: Subject) -> str:
    """The spec's numbers are positive, its cameras distinct, and the adapter has the methods it says it provides."""
    found = subject.spec
    sizes = [found.width, found.image_size, *found.grid, found.level_depth, found.level_width]
    sizes += [found.action.horizon, found.action.dim]
    expect(all(size > 0 for size in sizes), f"a size in the spec is not positive: {found}")
    expect(0 < len(set(found.cameras)) == len(found.cameras), f"cameras are {found.cameras}")
    unknown = found.provides - set(_PROTOCOLS)
    expect(not unknown, f"provides has {sorted(unknown)}; known are {sorted(_PROTOCOLS)}")
    for name in {"hidden", *found.provides}:
        missing = [item for item in _members(_PROTOCOLS[name]) if not hasattr(subject.adapter, item)]
        expect(not missing, f"it provides {name!r} but lacks {', '.join(missing)}")
    return f"width {found.width}, grid {found.grid}, provides {', '.join(sorted(found.provides))}"


def _members(protocol: type) -> list[str]:
    own = ("collate", "features", "prefix", "hidden", "prefill", "native_loss", "native_actions")
    return [name for name in (*own, "flow_loss", "flow_sample", "spec", "module") if name in _names(protocol)]


def _names(protocol: type) -> set[str]:
    return {name for base in protocol.__mro__ for name in (*vars(base), *vars(base).get("__annotations__", {}))}


def groups(subject: Subject) -> str:
    """Every group matches parameters, no parameter is in two, and vision and llm are among them."""
    names = [name for name, _ in subject.adapter.module.named_parameters()]
    owners: Counter[str] = Counter()
    for group, pattern in subject.spec.groups.items():
        expect(group in GROUPS, f"there is no group {group!r}; core knows {', '.join(GROUPS)}")
        found = [name for name in names if re.fullmatch(pattern, name)]
        expect(bool(found), f"group {group!r} matches no parameter; its pattern {pattern!r} must match whole names")
        owners.update(found)
    twice = [name for name, count in owners.items() if count > 1]
    expect(not twice, f"{len(twice)} parameters are in two groups, such as {twice[:1]}")
    missing = {"vision", "llm"} - set(subject.spec.groups)
    expect(not missing, f"the groups {sorted(missing)} are missing; LoRA adapts llm by default")
    left = [name for name in names if name not in owners]
    return f"{len(left)} of {len(names)} parameters in no group" + (f", such as {left[0]}" if left else "")


def collate(subject: Subject) -> str:
    """Inputs are tensors with one row per sample, and every camera has one Affine per row."""
    for train in (False, True):
        batch = subject.adapter.collate(list(subject.samples), train=train)
        B = len(subject.samples)
        for name, value in batch.inputs.items():
            expect(isinstance(value, Tensor) and len(value) == B, f"input {name!r} has not one row per sample")
        expect(set(batch.geometry) == set(subject.spec.cameras), f"geometry has the cameras {sorted(batch.geometry)}")
        rows = {camera: len(maps) for camera, maps in batch.geometry.items()}
        expect(set(rows.values()) == {B}, f"geometry has {rows} maps for {B} samples")
    return f"inputs {', '.join(sorted(batch.inputs))}"


def geometry(subject: Subject) -> str:
    """A bright square in the camera's image appears in the pixels where the Affine says it does."""
    details = []
    for train in (False, True):
        for camera in subject.spec.cameras:
            for box in ((0.2, 0.3, 0.4, 0.5), (0.6, 0.55, 0.75, 0.75)):
                details.append(_follow_square(subject, camera, box, train))
    return f"pixels within {max(details):.1f} pixels of where the map puts them" if any(details) else "no pixels found"


def _follow_square(subject: Subject, camera: str, box: tuple[float, ...], train: bool) -> float:
    dark = replace(
        subject.samples[0], images={name: np.zeros((120, 160, 3), np.uint8) for name in subject.spec.cameras}
    )
    lit_image = dark.images[camera].copy()
    x0, y0, x1, y1 = box
    lit_image[round(y0 * 120) : round(y1 * 120), round(x0 * 160) : round(x1 * 160)] = 255
    lit = replace(dark, images={**dark.images, camera: lit_image})
    before, after = (_seeded(subject, sample, train) for sample in (dark, lit))
    affine = after.geometry[camera][0]
    if affine != before.geometry[camera][0]:
        return 0.0  # an augmentation with a generator of its own; the case without training has been checked
    size = subject.spec.image_size
    seen = _changed(before, after, size)
    expect(seen is not None, f"no input of side {size} (the spec's image_size) changes with the image of {camera!r}")
    wanted = np.array([*sorted((affine(x0, 0)[0], affine(x1, 0)[0])), *sorted((affine(0, y0)[1], affine(0, y1)[1]))])
    error = float(np.abs(seen - np.clip(wanted, 0, 1)).max() * size)
    expect(error <= 2.0, f"a square of camera {camera!r} lies {error:.1f} pixels from where its Affine puts it")
    return error


def _seeded(subject: Subject, sample: Sample, train: bool) -> Batch:
    """Collate one sample with all global generators at the same state, so that two calls augment alike."""
    with torch.random.fork_rng(devices=[]):
        kept = random.getstate(), np.random.get_state()
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        try:
            return subject.adapter.collate([sample], train=train)
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])


def _changed(before: Batch, after: Batch, size: int) -> np.ndarray | None:
    """x0, x1, y0, y1 in [0, 1] of the pixels that differ by more than half of the largest change, or None."""
    total = torch.zeros(size, size)
    for name, value in after.inputs.items():
        gap = (value.float() - before.inputs[name].float()).abs() if value.shape == before.inputs[name].shape else None
        if gap is not None and gap.ndim >= 4 and gap.shape[-2:] == (size, size):
            total += gap.flatten(0, -3).sum(0)
        elif gap is not None and gap.ndim >= 4 and gap.shape[-3:-1] == (size, size):
            total += gap.flatten(0, -4).sum((0, -1))
    if not total.any():
        return None
    rows, columns = torch.nonzero(total > total.max() / 2, as_tuple=True)
    edges = (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)
    return np.array([float(edge) / size for edge in edges])


def one_vision_pass(subject: Subject) -> str:
    """Levels come from the same pass as the tokens: no vision module runs more often, and prefix() runs none."""
    batch = subject.batch()
    with _calls(subject) as plain:
        subject.adapter.features(batch, ())
    with _calls(subject) as levelled:
        features = subject.adapter.features(batch, LEVELS)
    with _calls(subject) as later:
        subject.adapter.hidden(subject.adapter.prefix(batch, features))
    expect(bool(plain), "features() ran no module of the group 'vision'; correct spec.groups")
    more = [name for name, count in levelled.items() if count > plain[name]]
    expect(not more, f"asking for levels runs {more[:3]} more often than without; capture them in the same pass")
    expect(not later, f"prefix() or hidden() run vision modules {list(later)[:3]}; features() alone may")
    most, cameras = max(plain.values()), len(subject.spec.cameras)
    expect(most <= cameras, f"a vision module runs {most} times for {cameras} cameras")
    return f"{most} run of each vision module for {cameras} camera(s)"


@contextmanager
def _calls(subject: Subject) -> Iterator[Counter[str]]:
    """Count the runs of every leaf module that has parameters of the group 'vision'."""
    pattern, counts = re.compile(subject.spec.groups.get("vision", "")), Counter[str]()
    handles = [
        module.register_forward_hook(lambda *_, name=name: counts.update([name]))
        for name, module in subject.adapter.module.named_modules()
        if _is_leaf(name, module, pattern)
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _is_leaf(name: str, module: nn.Module, pattern: re.Pattern[str]) -> bool:
    own = [f"{name}.{parameter}" for parameter, _ in module.named_parameters()]
    return bool(own) and not any(True for _ in module.children()) and all(map(pattern.fullmatch, own))


def levels(subject: Subject) -> str:
    """Tokens are [B, N, D], levels [B, N, C]; asking for levels changes no token; deeper levels differ."""
    batch, found = subject.batch(), subject.spec
    B, N = len(subject.samples), found.grid[0] * found.grid[1]
    features, plain = subject.adapter.features(batch, LEVELS), subject.adapter.features(batch, ())
    for camera in found.cameras:
        shape = tuple(features.tokens[camera].shape)
        expect(shape == (B, N, found.width), f"tokens of {camera!r} have shape {shape}, not {(B, N, found.width)}")
        expect(torch.equal(features.tokens[camera], plain.tokens[camera]), "tokens change with the levels asked for")
        shapes = {tuple(level.shape) for level in features.levels[camera]}
        expect(shapes == {(B, N, found.level_width)}, f"levels have {shapes}, not {(B, N, found.level_width)}")
        expect(len(features.levels[camera]) == len(LEVELS), "there is not one level per fraction asked for")
        expect(len(plain.levels[camera]) == 0, "levels are returned that nobody asked for")
    first, last = features.levels[found.cameras[0]][0], features.levels[found.cameras[0]][-1]
    expect(found.level_depth == 1 or not torch.equal(first, last), "the levels at 0.25 and at 1.0 are the same")
    return f"{len(LEVELS)} levels of width {found.level_width} on {found.grid[0]} x {found.grid[1]} patches"


def prefix(subject: Subject) -> str:
    """Spans image:<camera> hold the features' tokens in order; "instruction" ends with the instruction in each row."""
    batch, found = subject.batch(), subject.spec
    features = subject.adapter.features(batch, ())
    built = subject.adapter.prefix(batch, features)
    B, S, D = built.tokens_BSD.shape
    expect(found.width == D, f"tokens are {D} wide, the spec says {found.width}")
    for name in ("valid_BS", "block_BS", "span_BS"):
        expect(getattr(built, name).shape == (B, S), f"{name} has shape {tuple(getattr(built, name).shape)}")
    wanted = {"instruction", *(f"image:{camera}" for camera in found.cameras)}
    expect(wanted <= set(built.names), f"spans are {built.names}; expected {sorted(wanted)} among them")
    for camera in found.cameras:
        tokens = built.read(f"image:{camera}", built.tokens_BSD)
        expect_close(tokens, features.tokens[camera].to(tokens), f"span image:{camera} and the features' tokens")
    here_BS = built.span_BS == built.names.index("instruction")
    expect((here_BS & built.valid_BS).any(1).all(), "a row has no valid token in the span 'instruction'")
    return f"{S} tokens in {', '.join(built.names)}"


def instruction(subject: Subject) -> str:
    """A longer instruction lengthens the span "instruction" and no other; nothing of the text stands outside it."""
    lengths = []
    for text in ("pick the cup", "pick the cup, refer to"):
        built = subject.prefix([replace(subject.samples[0], instruction=text)])
        valid_S = built.valid_BS[0]
        lengths.append({name: int((valid_S & (built.span_BS[0] == i)).sum()) for i, name in enumerate(built.names)})
    short, long = lengths
    expect(long["instruction"] > short["instruction"], f"more words leave the span 'instruction' at {short}")
    others = [name for name in short if name != "instruction" and short[name] != long[name]]
    expect(not others, f"more words in the instruction lengthen the spans {others}; they belong to 'instruction'")
    return f"{short['instruction']} tokens, {long['instruction']} with more words"


def repeatable(subject: Subject) -> str:
    """The same input gives the same output twice."""
    built = subject.prefix()
    first, second = subject.adapter.hidden(built), subject.adapter.hidden(subject.prefix())
    expect(torch.equal(first, second), "two runs on the same samples differ; put the base into eval mode")
    expect(first.shape == built.tokens_BSD.shape, f"hidden states have shape {tuple(first.shape)}")
    expect(torch.isfinite(first[built.valid_BS]).all(), "hidden states of valid tokens are not finite")
    return "two runs are bit-identical"


CLAUSES = (spec, groups, collate, geometry, one_vision_pass, levels, prefix, instruction, repeatable)
