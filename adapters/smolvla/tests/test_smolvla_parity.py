"""Without prompts the wrapped SmolVLA is LeRobot's SmolVLAPolicy, to the last bit, on float32 and a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pixelvla_smolvla.adapter import build
from pixelvla_smolvla.config import SmolVLAOptions
from pixelvla_smolvla.plugin import pixelvla_backbones

from pixelvla_core import checkpoint
from pixelvla_core.model import lora
from pixelvla_core.model.config import NativeHeadConfig, PixelEncoderConfig, PromptEncoderConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.model.prompt_encoder import VisualPromptEncoder
from pixelvla_core.wrap import wrap

LAYOUTS = {
    "plain": {},
    "special tokens": {"add_image_special_tokens": True},
    "padded": {"prefix_length": 150, "pad_language_to": "max_length"},
    "an empty camera": {"empty_cameras": 1, "add_image_special_tokens": True},
    "self attention": {"attention_mode": "self_attn"},
    "a shorter expert": {"num_expert_layers": 1},
    "every layer across": {"self_attn_every_n_layers": -1},
}


def wrapped(folder, **options):
    adapter = build(SmolVLAOptions(**options), weights=str(folder))
    spec = adapter.spec
    return PixelVLA(
        adapter,
        NativeHead(NativeHeadConfig(), spec),
        pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(levels=[0.5, 1.0], hidden=32), spec),
        prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(width=32, hidden=32), spec),
    ).eval()


def losses(model, reference, samples):
    """The training loss of both, noise and time drawn from one seed by each itself."""
    torch.manual_seed(3)
    ours = model.loss(model.collate(samples, train=True))
    torch.manual_seed(3)
    theirs, _ = reference.policy.forward(reference.batch(samples))
    return ours, theirs


def chunks(model, reference, samples):
    torch.manual_seed(4)
    ours = model.predict(model.collate(samples, train=False))
    torch.manual_seed(4)
    return ours, reference.policy.predict_action_chunk(reference.batch(samples))


def assert_equal(model, reference, samples):
    for ours, theirs in (losses(model, reference, samples), chunks(model, reference, samples)):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_chunk_are_lerobots(policy_folder, lerobot, samples, layout):
    folder = policy_folder(**LAYOUTS[layout])
    assert_equal(wrapped(folder), lerobot(folder), samples)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_prefix_is_lerobots(policy_folder, lerobot, samples, layout):
    folder = policy_folder(**LAYOUTS[layout])
    reference, adapter = lerobot(folder), build(SmolVLAOptions(), weights=str(folder))
    batch = adapter.collate(samples, train=False)
    found = adapter.prefix(batch, adapter.features(batch, ()))
    given = reference.batch(samples)
    images, masks = reference.policy.prepare_images(given)
    text = given["observation.language.tokens"], given["observation.language.attention_mask"]
    tokens, valid, blocks = reference.policy.model.embed_prefix(
        images, masks, *text, state=reference.policy.prepare_state(given)
    )
    assert torch.equal(found.valid_BS, valid)
    assert torch.equal(found.block_BS, blocks)
    assert torch.equal(found.tokens_BSD[valid], tokens[valid])


def test_lora_changes_nothing_until_it_is_trained(folder, lerobot, samples):
    model = wrapped(folder)
    assert lora.inject(model.base, [model.backbone.spec.groups["llm"]], rank=4, alpha=8.0)
    assert_equal(model, lerobot(folder), samples)


def test_what_is_saved_is_the_same_to_both(folder, lerobot, samples, tmp_path):
    model = wrapped(folder)
    lora.inject(model.base, [model.backbone.spec.groups["llm"]], rank=4, alpha=8.0)
    model.save_base(tmp_path)
    again = lerobot(tmp_path)
    assert_equal(wrapped(tmp_path), again, samples)
    assert_equal(wrapped(folder), again, samples)


@pytest.mark.parametrize("full", [False, True])
def test_a_wrapped_checkpoint_acts_as_lerobot(folder, lerobot, samples, tmp_path, full):
    wrap("smolvla", str(folder), tmp_path / "wrapped", ["head/native"], full=full)
    model = checkpoint.load(tmp_path / "wrapped").model
    assert model.contract.rule == "mean_std"
    assert torch.equal(*chunks(model, lerobot(folder), samples))


def test_gradients_are_lerobots(folder, lerobot, samples):
    model, reference = wrapped(folder), lerobot(folder)
    for module in (model.base, reference.policy):
        module.requires_grad_(True)
    for loss in losses(model, reference, samples):
        loss.backward()
    pairs = list(zip(model.base.named_parameters(), reference.policy.named_parameters(), strict=True))
    reached = [name for (name, ours), (_, theirs) in pairs if ours.grad is not None or theirs.grad is not None]
    assert any("text_model.layers.0" in name for name in reached)
    assert any("vision_model" in name for name in reached)
    for (name, ours), (_, theirs) in pairs:
        if name in reached:
            assert torch.equal(ours.grad, theirs.grad), name


def test_fewer_cameras_under_other_names_are_lerobots_missing_cameras(folder, lerobot, samples):
    one = [replace(sample, images={"front": sample.images["front"]}) for sample in samples]
    renamed = [replace(sample, images={"top": sample.images["front"]}) for sample in samples]
    model, reference = wrapped(folder, cameras=["top"]), lerobot(folder)
    torch.manual_seed(4)
    ours = model.predict(model.collate(renamed, train=False))
    torch.manual_seed(4)
    assert torch.equal(ours, reference.policy.predict_action_chunk(reference.batch(one)))


def test_the_component_names_what_the_adapter_provides(folder):
    assert pixelvla_backbones()[0].provides == wrapped(folder).backbone.spec.provides
