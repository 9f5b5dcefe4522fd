"""The continuous action head: its readout, its loss, and the short way behind a frozen prefix.

Shapes: B batch, H horizon, A action dim, D width.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.errors import RecipeError, UserError
from pixelvla_core.model.action_head import L1ActionHead, l1_loss
from pixelvla_core.model.config import READOUTS, ActionHeadConfig, NativeHeadConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.seam.batch import Batch
from pixelvla_core.testing import example_samples
from pixelvla_core.testing.subject import Subject, with_actions

H, A = 5, 7
pytestmark = pytest.mark.timeout(900)  # importing what OpenVLA needs takes minutes on a busy machine


def third_party(causal: bool) -> Subject:
    adapter = build(ThirdPartyConfig(causal=causal, horizon=2), weights=None)
    return Subject(adapter, example_samples(adapter.spec))


def openvla() -> Subject:
    """A small OpenVLA with random weights of a size at which attention matters."""
    pytest.importorskip("pixelvla_openvla")
    from pixelvla_openvla import OpenVLA
    from pixelvla_openvla.adapter import OpenVLAAdapter
    from pixelvla_openvla.processing import PromptTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers

    tower = {"patch_size": 14, "embed_dim": 16, "depth": 3, "num_heads": 2, "class_token": False}
    text = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = {
        "model_type": "openvla",
        "image_sizes": [28],
        "towers": [tower],
        "text_config": {**text, "num_attention_heads": 2, "pad_token_id": 320, "initializer_range": 0.2},
        "pad_token_id": 320,
        "empty_token_id": 3,
    }
    words = ["<unk>", "<s>", "</s>", "_", "In", "Out", "action", "robot", "pick", "red", "block", "drawer", ":", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = OpenVLA.from_config(config, seed=3).eval()
    model.tokenizer = PromptTokenizer(tokenizer, model.config)
    adapter = OpenVLAAdapter(model)
    return Subject(adapter, example_samples(adapter.spec))


SUBJECTS = {"causal": lambda: third_party(True), "prefix-LM": lambda: third_party(False), "openvla": openvla}


def head(subject: Subject, readout: str = "queries") -> L1ActionHead:
    torch.manual_seed(0)
    return L1ActionHead(ActionHeadConfig(width=16, readout=readout), subject.spec, horizon=H, dim=A)


def targets(subject: Subject) -> Batch:
    rows = [with_actions(sample, subject.spec, seed, H).actions for seed, sample in enumerate(subject.samples)]
    valid_BH = torch.arange(H) < torch.tensor([[H], [2], [3]])
    return replace(
        subject.batch(), actions_BHA=torch.stack([torch.from_numpy(row) for row in rows]), action_valid_BH=valid_BH
    )


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_what_a_frozen_prefix_left_behind_gives_the_loss_and_gradient_of_one_pass(name, readout):
    subject = SUBJECTS[name]()
    model, batch = head(subject, readout), targets(subject)
    with torch.no_grad():
        prefix = subject.prefix()
        past = model.prefill(subject.adapter, prefix)
    found = []
    for given in ({"prefix": prefix}, {"prefix": None, "past": past}):
        model.zero_grad()
        loss = model.loss(subject.adapter, given["prefix"], batch, past=given.get("past"))
        loss.backward()
        found.append((loss.detach(), model.queries_HD.grad.clone(), model.project.weight.grad.clone()))
    for whole, short in zip(*found, strict=True):
        assert (whole - short).abs().max() < 1e-5
        assert whole.any()


def test_the_head_is_what_its_docstring_says():
    subject = third_party(True)
    model, prefix = head(subject), subject.prefix()
    whole = prefix.insert("query", model.queries_HD.expand(3, -1, -1), after="", new_block=True)
    x = subject.adapter.hidden(whole)[:, -H:]
    x = x @ model.project.weight.T + model.project.bias
    for block in model.blocks:
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + block.norm.eps).sqrt()
        x = x + torch.nn.functional.gelu(normed @ block.linear.weight.T + block.linear.bias)
    assert len(model.blocks) == 2
    first, last = model.mlp[0], model.mlp[2]
    expected = torch.nn.functional.gelu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    actions_BHA = model.act(subject.adapter, prefix, subject.batch())
    assert actions_BHA.shape == (3, H, A)
    assert torch.allclose(actions_BHA, expected, atol=1e-5)


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_last_readout_is_where_the_base_itself_would_act(name):
    """Also in a row whose text ends before that of others, and whatever stands in columns that are not valid."""
    subject = SUBJECTS[name]()
    model, prefix = head(subject, "last"), subject.prefix()
    with torch.no_grad():
        hidden_BSD = subject.adapter.hidden(prefix)
        rows = [hidden[valid][-1] for hidden, valid in zip(hidden_BSD, prefix.valid_BS, strict=True)]
        assert len({int(valid.sum()) for valid in prefix.valid_BS}) > 1
        read_BHD = torch.stack(rows)[:, None] + model.queries_HD
        wanted = model.mlp(model.blocks(model.project(read_BHD)))
        assert torch.equal(model.act(subject.adapter, prefix, subject.batch()), wanted)
        chunk = model.act(subject.adapter, prefix, subject.batch())
    assert (chunk[:, 0] - chunk[:, 1]).abs().max() > 0


def test_an_unknown_readout_is_refused():
    with pytest.raises(RecipeError, match="readout is first; expected queries or last"):
        ActionHeadConfig(readout="first")


def test_the_loss_counts_valid_steps_only():
    predicted = torch.zeros(2, 3, 2, requires_grad=True)
    wanted = torch.tensor([[[1.0, 3.0], [9, 9], [9, 9]], [[0.0, 2.0], [4.0, 0.0], [9, 9]]])
    valid = torch.tensor([[True, False, False], [True, True, False]])
    batch = Batch(inputs={}, geometry={}, actions_BHA=wanted, action_valid_BH=valid)
    loss = l1_loss(predicted, batch)
    assert loss.item() == pytest.approx((1 + 3 + 0 + 2 + 4 + 0) / 6)
    loss.backward()
    assert not predicted.grad[~valid].any()
    none = replace(batch, action_valid_BH=torch.zeros_like(valid))
    assert l1_loss(predicted, none).item() == 0.0


def test_nan_beyond_the_end_of_an_episode_does_not_reach_the_gradient():
    predicted = torch.zeros(1, 2, 2, requires_grad=True)
    wanted = torch.tensor([[[1.0, 1.0], [torch.nan, torch.nan]]])
    batch = Batch(inputs={}, geometry={}, actions_BHA=wanted, action_valid_BH=torch.tensor([[True, False]]))
    loss = l1_loss(predicted, batch)
    loss.backward()
    assert loss.item() == 1.0
    assert torch.isfinite(predicted.grad).all()


def test_a_chunk_of_another_size_is_refused_with_both_shapes():
    batch = Batch(inputs={}, geometry={}, actions_BHA=torch.zeros(1, 4, 7))
    with pytest.raises(UserError, match=r"\(1, 4, 7\).*\(1, 5, 7\)"):
        l1_loss(torch.zeros(1, 5, 7), batch)
    with pytest.raises(UserError, match="no actions"):
        l1_loss(torch.zeros(1, 5, 7), Batch(inputs={}, geometry={}))


def test_the_native_head_is_the_base_itself():
    subject = third_party(True)
    native = NativeHead(NativeHeadConfig(), subject.spec, horizon=8, dim=7)
    assert native.horizon == subject.spec.action.horizon == 2
    prefix, batch = subject.prefix(), targets(subject)
    assert torch.equal(native.loss(subject.adapter, prefix, batch), subject.adapter.native_loss(prefix, batch))
    actions = native.act(subject.adapter, prefix, batch)
    assert torch.equal(actions, subject.adapter.native_actions(prefix, batch))
    with pytest.raises(UserError, match="cached"):
        native.loss(subject.adapter, prefix, batch, past=subject.adapter.prefill(prefix))


def test_the_native_head_refuses_what_the_base_cannot_give():
    spec = third_party(True).spec
    with pytest.raises(UserError, match="provides"):
        NativeHead(NativeHeadConfig(), replace(spec, provides=frozenset({"hidden"})))
    with pytest.raises(UserError, match="14"):
        NativeHead(NativeHeadConfig(), spec, horizon=1, dim=14)


def test_the_native_head_keeps_the_datas_dimensions_of_a_base_that_pads():
    subject = third_party(True)
    padding = replace(subject.spec, action=replace(subject.spec.action, max_dim=7, dim=5))
    prefix, batch = subject.prefix(), targets(subject)
    for given, kept in ((3, 3), (0, 5), (7, 7)):
        native = NativeHead(NativeHeadConfig(), padding, dim=given)
        actions = native.act(subject.adapter, prefix, batch)
        assert torch.equal(actions, subject.adapter.native_actions(prefix, batch)[..., :kept])
    with pytest.raises(UserError, match="7 values a step at most, the data has 8"):
        NativeHead(NativeHeadConfig(), padding, dim=8)


@pytest.mark.parametrize(("options", "words"), [({"width": -5}, "width is -5"), ({"blocks": -1}, "blocks is -1")])
def test_options_out_of_range_are_refused_before_anything_is_built(options, words):
    with pytest.raises(RecipeError, match=words):
        ActionHeadConfig(**options)
