"""OpenVLA behind the seam: it computes what the plain model computes, and inserted tokens do only what they should."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixelvla_openvla import OpenVLA
from pixelvla_openvla.adapter import OpenVLAAdapter, build
from pixelvla_openvla.config import OpenVLAConfig
from pixelvla_openvla.plugin import pixelvla_backbones

from pixelvla_core.api import BackboneAdapter, NativeBackbone, Prefix, Sample, UserError
from pixelvla_core.testing import check_backbone

INSTRUCTIONS = ["open the drawer", "Put a red cube on the plate", "take the green cube"]
fast = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def samples(count=3, cameras=("front",), seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(40, 60), (56, 56), (70, 30)]
    return [
        Sample(
            images={camera: rng.integers(0, 256, (*shapes[i % 3], 3), dtype=np.uint8) for camera in cameras},
            instruction=INSTRUCTIONS[i % 3],
            key=f"test/{i}",
        )
        for i in range(count)
    ]


@pytest.fixture
def adapter(small) -> OpenVLAAdapter:
    return OpenVLAAdapter(small)


def prefix_of(adapter, batch):
    return adapter.prefix(batch, adapter.features(batch, ()))


def with_actions(batch, actions, valid=None):
    from dataclasses import replace

    return replace(batch, actions_BHA=torch.as_tensor(actions), action_valid_BH=valid)


def test_it_is_what_the_seam_asks_for(adapter):
    assert isinstance(adapter, BackboneAdapter)
    assert isinstance(adapter, NativeBackbone)
    spec = adapter.spec
    assert (spec.width, spec.causal, spec.image_size, spec.grid) == (32, True, 56, (4, 4))
    assert (spec.level_depth, spec.level_width, spec.action.horizon, spec.action.dim) == (4, 32, 1, 4)
    assert spec.provides == pixelvla_backbones()[0].provides


def test_every_parameter_is_in_exactly_one_group(adapter):
    for name, _ in adapter.module.named_parameters():
        assert sum(re.fullmatch(pattern, name) is not None for pattern in adapter.spec.groups.values()) == 1, name


@torch.no_grad()
def test_without_inserted_tokens_it_is_the_plain_model_to_the_last_bit(adapter):
    batch = adapter.collate(samples(), train=False)
    inputs = batch.inputs
    plain = adapter.module(inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values:front"])
    prefix = prefix_of(adapter, batch)
    assert torch.equal(prefix.valid_BS, plain.valid)
    assert torch.equal(adapter.hidden(prefix), plain.last_hidden_state)


@torch.no_grad()
def test_the_official_checkpoint_gives_the_official_numbers_through_the_seam(official, reference):
    from pixelvla_core.api import Batch

    adapter = OpenVLAAdapter(official)
    inputs = {"pixel_values:front": reference["in.pixel_values"]}
    features = adapter.features(Batch(inputs=inputs, geometry={}), levels=(0.5, 1.0))
    inside = torch.zeros_like(reference["in.input_ids"])
    inside[:, 10:18] = 1
    inputs |= {
        "input_ids": reference["in.input_ids"],
        "attention_mask": torch.ones_like(inside),
        "instruction_mask": inside,
    }
    hidden = adapter.hidden(adapter.prefix(Batch(inputs=inputs, geometry={}), features))
    assert (hidden - reference["forward.hidden_states.2"]).abs().max() <= 1e-5
    assert torch.equal(features.levels["front"][-1], official.vision_features(reference["in.pixel_values"])[..., 48:])
    assert adapter.spec.action.dim == 7


@torch.no_grad()
@fast
@given(st.sampled_from(["bos", "image:front", "instruction", "text", ""]), st.integers(1, 5), st.integers(0, 99))
def test_inserted_tokens_that_are_not_valid_change_nothing(adapter, after, count, seed):
    batch = adapter.collate(samples(seed=seed), train=False)
    prefix = prefix_of(adapter, batch)
    noise = torch.randn(3, count, 32, generator=torch.Generator().manual_seed(seed))
    more = prefix.insert("pixel", noise, torch.zeros(3, count, dtype=torch.bool), after=after)
    kept = more.span_BS != more.names.index("pixel")
    hidden = adapter.hidden(more)[kept].view(3, -1, 32)
    assert (hidden - adapter.hidden(prefix))[prefix.valid_BS].abs().max() <= 1e-6
    assert torch.equal(adapter.native_actions(more, batch), adapter.native_actions(prefix, batch))


@torch.no_grad()
def test_inserted_tokens_that_are_valid_do_change_what_follows(adapter):
    batch = adapter.collate(samples(), train=False)
    prefix = prefix_of(adapter, batch)
    more = prefix.insert("pixel", torch.randn(3, 2, 32), after="image:front")
    before = adapter.hidden(more)[:, :17]
    assert (before - adapter.hidden(prefix)[:, :17]).abs().max() <= 1e-6  # causal: BOS and patches do not see them
    assert (more.read("pixel", adapter.hidden(more))).isfinite().all()
    assert (adapter.hidden(more)[:, -1] - adapter.hidden(prefix)[:, -1]).abs().max() > 1e-3


@torch.no_grad()
@fast
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(1, 4))
def test_a_batch_gives_what_its_samples_give_alone(adapter, picks, queries):
    rows = [samples()[i] for i in picks]
    noise = torch.randn(1, queries, 32, generator=torch.Generator().manual_seed(1))

    def read(chosen):
        prefix = prefix_of(adapter, adapter.collate(chosen, train=False))
        whole = prefix.insert("query", noise.expand(len(chosen), -1, -1), after="")
        return whole.read("query", adapter.hidden(whole))

    together = read(rows)
    for row, sample in enumerate(rows):
        assert (together[row] - read([sample])[0]).abs().max() <= 2e-6


def test_queries_after_a_kept_prefix_are_those_of_one_pass_and_have_the_same_gradient(adapter):
    prefix = prefix_of(adapter, adapter.collate(samples(), train=False))
    queries = torch.randn(3, 4, 32, requires_grad=True)
    whole = prefix.insert("query", queries, after="")
    one = whole.read("query", adapter.hidden(whole))
    (expected,) = torch.autograd.grad(one.square().sum(), queries)
    with torch.no_grad():
        past = adapter.prefill(prefix)
    lengths = [keys.shape[2] for keys, _ in past.layers]
    two = adapter.hidden(Prefix.of("query", queries), past)
    (found,) = torch.autograd.grad(two.square().sum(), queries)
    assert (one - two).abs().max() <= 2e-6
    assert (expected - found).abs().max() <= 1e-4 * expected.abs().max()
    assert [keys.shape[2] for keys, _ in past.layers] == lengths  # what was kept can be used again


@pytest.mark.parametrize("cameras", [("front",), ("front", "wrist")])
def test_one_vision_pass_serves_all_cameras_and_levels(small, monkeypatch, cameras):
    adapter = OpenVLAAdapter(small, cameras=cameras)
    calls = []
    for tower in small.vision_backbone.towers:
        plain = tower.forward_intermediates
        monkeypatch.setattr(
            tower, "forward_intermediates", lambda *a, plain=plain, **k: calls.append(1) or plain(*a, **k)
        )
    batch = adapter.collate(samples(cameras=cameras), train=True)
    features = adapter.features(batch, (0.25, 0.5, 0.75, 1.0))
    prefix = adapter.prefix(batch, features)
    assert len(calls) == 2  # DINOv2 and SigLIP, once each
    assert set(features.levels) == set(cameras)
    assert [level.shape for level in features.levels[cameras[-1]]] == [(3, 16, 32)] * 4
    assert prefix.names == ("bos", *(f"image:{camera}" for camera in cameras), "text", "instruction")
    for camera in cameras:
        with torch.no_grad():
            alone = small.image_tokens(batch.inputs[f"pixel_values:{camera}"])[0]
        assert (features.tokens[camera] - alone).abs().max() <= 1e-6


def test_the_instruction_is_a_span_of_its_own(adapter):
    batch = adapter.collate(samples(), train=False)
    prefix = prefix_of(adapter, batch)
    here = prefix.span_BS == prefix.names.index("instruction")
    assert here.sum(1).tolist() == [len(text.split()) for text in INSTRUCTIONS]
    inserted = prefix.insert("pixel", torch.zeros(3, 1, 32), after="instruction")
    for row in range(3):
        spans = inserted.span_BS[row]
        place = int((spans == inserted.names.index("pixel")).nonzero())
        assert spans[place - 1] == inserted.names.index("instruction")
        assert spans[place + 1] == inserted.names.index("text")


def test_native_loss_is_the_loss_of_the_plain_model(adapter):
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 1, 4)).astype(np.float32)
    batch = with_actions(adapter.collate(samples(), train=True), actions)
    found = adapter.native_loss(prefix_of(adapter, batch), batch)
    prompts = [adapter.module.tokenizer(text)[0] for text in INSTRUCTIONS]
    rows = adapter.module.teacher_forcing(prompts, actions[:, 0])
    expected = adapter.module.loss(pixel_values=batch.inputs["pixel_values:front"], **rows)
    assert torch.allclose(found, expected, atol=2e-6)
    found.backward()
    assert adapter.module.vision_backbone.featurizer.pos_embed.grad.abs().sum() > 0


def test_native_loss_skips_steps_that_are_not_valid(adapter):
    actions = np.zeros((3, 2, 4), np.float32)
    valid = torch.tensor([[True, True], [False, False], [True, False]])
    batch = with_actions(adapter.collate(samples(), train=True), actions, valid)
    actions[1], actions[:, 1] = 0.7, -0.9
    other = with_actions(batch, actions, valid)
    prefix = prefix_of(adapter, batch)
    assert torch.allclose(adapter.native_loss(prefix, batch), adapter.native_loss(prefix, other), atol=1e-6)


def test_native_actions_are_those_of_predict_action(adapter):
    batch = adapter.collate(samples(), train=False)
    found = adapter.native_actions(prefix_of(adapter, batch), batch)
    inputs = batch.inputs
    ids = adapter.module.generate(inputs["input_ids"], inputs["pixel_values:front"], 4, inputs["attention_mask"])
    assert found.dtype == torch.float32
    assert found.shape == (3, 1, 4)
    assert torch.equal(found[:, 0], torch.from_numpy(adapter.module.actions.decode(ids.numpy())).float())


def test_missing_cameras_are_named(adapter):
    with pytest.raises(UserError, match="test/0 has images of wrist, but the backbone reads front"):
        adapter.collate(samples(1, cameras=("wrist",)), train=False)


def test_geometry_follows_the_image_processor(adapter):
    batch = adapter.collate(samples(), train=False)
    assert [affine(0.25, 0.5) for affine in batch.geometry["front"]] == [(0.25, 0.5)] * 3


def test_build_loads_a_folder(small, tmp_path):
    small.save_pretrained(tmp_path / "base", dtype="float32")
    built = build(OpenVLAConfig(cameras=("top",)), weights=str(tmp_path / "base"), dtype="bfloat16")
    assert built.spec.cameras == ("top",)
    assert built.weights_folder == tmp_path / "base"
    assert {value.dtype for value in built.module.parameters()} == {torch.bfloat16}
    batch = built.collate(samples(cameras=("top",)), train=False)
    plain = OpenVLAAdapter(small).collate(samples(cameras=("front",)), train=False)
    assert torch.equal(batch.inputs["input_ids"], plain.inputs["input_ids"])
    with pytest.raises(UserError, match="needs weights"):
        build(OpenVLAConfig(), weights=None)


def test_the_whole_contract_of_the_seam_holds(small, tmp_path):
    small.save_pretrained(tmp_path / "base", dtype="float32")
    report = check_backbone(pixelvla_backbones()[0], weights=str(tmp_path / "base"))
    assert report.ok, str(report)


def test_a_base_with_lora_beside_it_is_saved_without(small, tmp_path):
    from peft import LoraConfig, inject_adapter_in_model

    before = {name: value.clone() for name, value in small.state_dict().items()}
    inject_adapter_in_model(LoraConfig(r=2, target_modules=r"language_model\.model\..*_proj"), small)
    OpenVLAAdapter(small).save_base(tmp_path / "base")
    after = OpenVLA.from_pretrained(tmp_path / "base").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_data_sets_of_different_dimension_need_a_key(small):
    small.norm_stats = {**small.norm_stats, "other": {"action": {"q01": [0.0] * 7, "q99": [1.0] * 7}}}
    with pytest.raises(UserError, match="2 data sets"):
        OpenVLAAdapter(small)
    assert OpenVLAAdapter(small, unnorm_key="other").spec.action.dim == 7


@pytest.mark.parametrize("options", [{"cameras": ()}, {"cameras": ("a", "a")}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OpenVLAConfig(**options)


def test_listing_the_part_and_its_options_imports_no_torch():
    code = (
        "import sys, json; from pixelvla_openvla.plugin import pixelvla_backbones as f;"
        "[c.load_config() for c in f()]; "
        "print(json.dumps([m for m in ('torch', 'timm', 'transformers') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []
