"""Clauses on what the base computes: what must not change, what may learn, and what is saved.

Each clause takes the subject, returns what it measured in words, and raises ClauseError if it does not hold.

Shapes: B batch, S sequence, H horizon, A action dim.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelvla_core.model import freeze, lora
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.seam.batch import Batch
from pixelvla_core.seam.prefix import Prefix
from pixelvla_core.testing.subject import HORIZON, Subject, expect, expect_close
from pixelvla_core.types import BackboneSpec


def no_prompt(subject: Subject) -> str:
    """Wrapped, and without prompts and masks, the model computes exactly what the base computes."""
    model = subject.wrap()
    base, wrapped = subject.prefix(), model.prefix(model.collate(subject.samples, train=False).to(subject.device))
    expect(wrapped.names == base.names, f"wrapping adds the spans {set(wrapped.names) - set(base.names)}")
    expect(torch.equal(wrapped.tokens_BSD, base.tokens_BSD), "wrapping changes the tokens")
    hidden = [subject.adapter.hidden(prefix) for prefix in (base, wrapped)]
    expect(torch.equal(*hidden), "wrapping changes the hidden states")
    return "hidden states are bit-identical"


def invalid_tokens(subject: Subject) -> str:
    """Inserted tokens that are not valid change nothing, wherever they stand and whatever they hold."""
    base = subject.prefix()
    junk, where = subject.junk(base), (*(f"image:{camera}" for camera in subject.spec.cameras), "instruction", "")
    unseen = torch.zeros(junk.shape[:2], dtype=torch.bool, device=junk.device)
    wanted = subject.adapter.hidden(base)[base.valid_BS]
    details = []
    for after in where:
        grown = base.insert("junk", junk, unseen, after=after)
        found = subject.adapter.hidden(grown)[grown.valid_BS]
        details.append(expect_close(found, wanted, f"with tokens that are not valid after {after or 'the end'!r}"))
    return max(details)


def later_tokens(subject: Subject) -> str:
    """What stands before a new block does not see it."""
    base = subject.prefix()
    grown = base.insert("query", subject.junk(base), after="", new_block=True)
    S = base.tokens_BSD.shape[1]
    found, wanted = subject.adapter.hidden(grown)[:, :S], subject.adapter.hidden(base)
    return expect_close(found[base.valid_BS], wanted[base.valid_BS], "with and without tokens behind them")


def seen_tokens(subject: Subject) -> str:
    """What comes behind an inserted token depends on it, and gradient flows back to it, if and only if it is valid."""
    base = subject.prefix()
    for valid in (True, False):
        tokens = subject.junk(base).requires_grad_()
        shown = torch.full(tokens.shape[:2], valid, device=tokens.device)
        with torch.enable_grad():
            grown = base.insert("pixel", tokens, shown, after=f"image:{subject.spec.cameras[0]}")
        reached = _gradient(subject, grown, tokens)
        expect(
            reached or not valid, "no gradient reaches a token inserted behind the image: it is not seen, or detached"
        )
        expect(valid or not reached, "gradient reaches an inserted token that is not valid")
    return "gradient reaches valid tokens only"


@torch.enable_grad()
def _gradient(subject: Subject, prefix: Prefix, tokens: Tensor) -> bool:
    """Whether queries behind the prefix have a gradient to the tokens."""
    whole = prefix.insert("query", subject.junk(prefix, 2), after="", new_block=True)
    loss = whole.read("query", subject.adapter.hidden(whole)).float().square().sum()
    if not loss.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(loss, tokens, allow_unused=True)
    return gradient is not None and bool(gradient.any())


def past(subject: Subject) -> str:
    """prefill() and then hidden() with the past equal one pass over everything, also without autograd between."""
    base = subject.prefix()
    queries = subject.junk(base, HORIZON) / 10
    whole = base.insert("query", queries, after="", new_block=True)
    wanted = whole.read("query", subject.adapter.hidden(whole))
    found = subject.adapter.hidden(Prefix.of("query", queries), subject.adapter.prefill(base))
    return expect_close(found, wanted, "queries after a past, and in one pass")


def one_by_one(subject: Subject) -> str:
    """A batch of mixed prompts gives each sample what it gives alone; padding never changes a valid output."""
    model, samples = subject.wrap(), subject.prompted()
    together = model.predict(model.collate(samples, train=False).to(subject.device))
    alone = torch.cat([model.predict(model.collate([s], train=False).to(subject.device)) for s in samples])
    return expect_close(together, alone, "samples in a batch, and one by one")


def native(subject: Subject) -> str:
    """The base's own loss is a finite scalar, its actions [B, H, A], in a batch as one by one.

    A base with a flow samples its actions from noise; there the same noise is asked for, and ``flow`` compares rows.
    """
    if "native" not in subject.spec.provides:
        return "not provided"
    adapter: Any = subject.adapter
    batch, prefix = _with_actions(subject)
    loss = adapter.native_loss(prefix, batch)
    expect(loss.ndim == 0 and torch.isfinite(loss), f"native_loss returned {loss}; expected a finite scalar")
    found = _seeded_actions(adapter, prefix, batch)
    expect(tuple(found.shape) == _chunks(subject), f"native_actions has shape {tuple(found.shape)}")
    if "flow" in subject.spec.provides:
        return expect_close(_seeded_actions(adapter, prefix, batch), found, "native actions, twice from one seed")
    alone = [adapter.native_actions(subject.prefix([s]), subject.batch([s])) for s in subject.samples]
    return expect_close(found, torch.cat(alone), "native actions in a batch, and one by one")


def _seeded_actions(adapter: Any, prefix: Prefix, batch: Batch) -> Tensor:
    """The base's own actions, torch's generators being at one state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return adapter.native_actions(prefix, batch)


def flow(subject: Subject) -> str:
    """The flow's loss is [B, H, A], its samples too; tokens that are not valid change neither, nor do other rows."""
    if "flow" not in subject.spec.provides:
        return "not provided"
    adapter: Any = subject.adapter
    batch, base = _with_actions(subject)
    noise_BHA = torch.randn(_chunks(subject), generator=torch.Generator().manual_seed(0)).to(subject.device)
    time_B = torch.linspace(0.2, 0.8, len(noise_BHA), device=subject.device)
    junk = subject.junk(base)
    unseen = torch.zeros(junk.shape[:2], dtype=torch.bool, device=junk.device)
    grown = base.insert("junk", junk, unseen, after=f"image:{subject.spec.cameras[0]}")
    details = []
    for run in (
        lambda prefix: adapter.flow_loss(prefix, batch, noise_BHA, time_B),
        lambda prefix: adapter.flow_sample(prefix, batch, noise_BHA, 2),
    ):
        wanted = run(base)
        expect(wanted.shape == noise_BHA.shape, f"the flow gives shape {tuple(wanted.shape)}")
        details.append(expect_close(run(grown), wanted, "the flow with and without tokens that are not valid"))
    rows = [
        adapter.flow_sample(subject.prefix([sample]), subject.batch([sample]), noise_BHA[i : i + 1], 2)
        for i, sample in enumerate(subject.samples)
    ]
    details.append(expect_close(wanted, torch.cat(rows), "samples of the flow in a batch, and one by one"))
    return max(details)


def _chunks(subject: Subject) -> tuple[int, int, int]:
    """The shape of the base's own actions for all samples."""
    return len(subject.samples), subject.spec.action.horizon, subject.spec.action.widest


def _with_actions(subject: Subject) -> tuple[Batch, Prefix]:
    """The samples' batch with random actions of the base's own horizon, and its prefix."""
    generator = torch.Generator().manual_seed(0)
    actions_BHA = 2 * torch.rand(_chunks(subject), generator=generator) - 1
    valid_BH = torch.ones(actions_BHA.shape[:2], dtype=torch.bool)
    batch = replace(subject.batch(), actions_BHA=actions_BHA, action_valid_BH=valid_BH).to(subject.device)
    return batch, subject.adapter.prefix(batch, subject.adapter.features(batch, ()))


def names(subject: Subject) -> str:
    """Wrapping and LoRA leave the names of the base's own tensors as they are."""
    before = list(subject.adapter.module.state_dict())
    model = subject.wrap()
    expect(list(model.base.state_dict()) == before, "wrapping changes the names in the base's state dict")
    own = {id(parameter) for parameter in model.base.parameters()}
    twice = [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own]
    expect(len(twice) == len(list(model.base.named_parameters(remove_duplicate=False))), "the base is registered twice")
    return f"{len(before)} tensors keep their names"


def lora_identity(subject: Subject) -> str:
    """LoRA on the group llm is an identity until it is trained, and leaves nothing behind when it is removed."""
    module, before = subject.adapter.module, subject.adapter.hidden(subject.prefix())
    keys = list(module.state_dict())
    trained = {name: p.requires_grad for name, p in module.named_parameters()}
    targets = lora.inject(module, [subject.spec.groups["llm"]], rank=2, alpha=4.0)
    try:
        after = subject.adapter.hidden(subject.prefix())
        expect(torch.equal(before, after), "the hidden states change when LoRA is injected")
        expect(sorted(lora.base_state_dict(module)) == sorted(keys), "LoRA changes the names of the base's tensors")
    finally:
        lora.remove(module)
        for name, p in module.named_parameters():
            p.requires_grad_(trained[name])
    expect(list(module.state_dict()) == keys, "removing LoRA does not restore the base")
    return f"{len(targets)} linear layers, bit-identical"


def gradients(subject: Subject) -> str:
    """Of every group in turn: it alone receives gradient, and the groups that actions depend on receive some."""
    model, reached = subject.wrap(), []
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    lora.inject(model.base, [subject.spec.groups["llm"]], rank=2, alpha=4.0)
    try:
        batch = model.collate(subject.prompted(), train=True).to(subject.device)
        present = [group for group, found in freeze.parameters(model).items() if found and group != freeze.OTHER]
        reached = [group for group in present if _reaches(model, batch, group)]
    finally:
        model.zero_grad(set_to_none=True)
        lora.remove(model.base)
        for name, p in model.named_parameters():
            p.requires_grad_(trained[name])
        model.eval()
    missing = {"pixel", "prompt", "head", "lora", "vision", "llm"} - set(reached)
    expect(not missing, f"the groups {sorted(missing)} receive no gradient; is something run under no_grad?")
    return f"{', '.join(reached)}: each alone"


def _reaches(model: PixelVLA, batch: Batch, group: str) -> bool:
    """Train one group alone; whether it receives a gradient other than zero."""
    freeze.apply(model, [group])
    model.eval()
    model.zero_grad(set_to_none=True)
    members = freeze.parameters(model)
    for loss in _losses(model, batch):
        if loss.requires_grad:
            loss.backward()
    strays = [other for other, found in members.items() if other != group and any(p.grad is not None for p in found)]
    expect(not strays, f"training {group!r} alone gives gradient to {strays}")
    return any(p.grad is not None and bool(p.grad.any()) for p in members[group])


def _losses(model: PixelVLA, batch: Batch) -> Iterator[Tensor]:
    """Every loss that the base can be trained with; one at a time, so that one graph is in memory."""
    yield model.loss(batch)
    base: Any = model.backbone
    spec: BackboneSpec = base.spec
    own = replace(
        batch,
        actions_BHA=_stretch(batch.actions_BHA, spec.action.horizon),
        action_valid_BH=_stretch(batch.action_valid_BH, spec.action.horizon),
    )
    if "native" in spec.provides:
        yield base.native_loss(model.prefix(own), own)
    if "flow" in spec.provides:
        noise_BHA = 0 * _stretch(batch.actions_BHA, spec.action.horizon)
        time_B = torch.full(noise_BHA.shape[:1], 0.5, device=noise_BHA.device)
        yield base.flow_loss(model.prefix(own), own, noise_BHA, time_B).mean()


def _stretch(values: Tensor | None, horizon: int) -> Tensor:
    """The first ``horizon`` steps, the last one repeated if there are fewer."""
    assert values is not None  # the samples of a conformance run have actions
    steps = torch.arange(horizon, device=values.device).clamp(max=values.shape[1] - 1)
    return values[:, steps]


def saved(subject: Subject) -> str:
    """save_base() and building from what it wrote give the same hidden states."""
    if not hasattr(subject.adapter, "save_base"):
        return "no save_base; this base cannot be written by itself"
    with tempfile.TemporaryDirectory() as folder:
        subject.adapter.save_base(Path(folder))
        if subject.reload is None:
            return "written, not read back; give check_backbone the Component to test that"
        again = replace(subject, adapter=subject.reload(folder))
        again.adapter.module.to(subject.device)
        _same_weights(subject.adapter.module, again.adapter.module)
        found, wanted = (one.adapter.hidden(one.prefix()) for one in (again, subject))
    return expect_close(found, wanted, "the base, and what was saved and loaded")


def _same_weights(module: nn.Module, again: nn.Module) -> None:
    before, after = module.state_dict(), again.state_dict()
    different = sorted(set(before) ^ set(after))
    expect(not different, f"saving and loading changes the tensors {different[:3]}")


CLAUSES = (
    no_prompt,
    invalid_tokens,
    later_tokens,
    seen_tokens,
    past,
    one_by_one,
    native,
    flow,
    names,
    lora_identity,
    gradients,
    saved,
)
