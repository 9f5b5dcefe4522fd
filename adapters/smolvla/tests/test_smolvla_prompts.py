"""Prompts and masks: they change actions, belong to their camera, and follow the letterbox."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelvla_smolvla.adapter import build
from pixelvla_smolvla.config import SmolVLAOptions
from pixelvla_smolvla.processing import geometry

from pixelvla_core.errors import UserError
from pixelvla_core.model.config import NativeHeadConfig, PixelEncoderConfig, PromptEncoderConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.model.prompt_encoder import VisualPromptEncoder
from pixelvla_core.prompts import Point


@pytest.fixture(scope="module")
def model(folder) -> PixelVLA:
    adapter = build(SmolVLAOptions(fixed_noise=True), weights=str(folder))
    torch.manual_seed(0)
    return PixelVLA(
        adapter,
        NativeHead(NativeHeadConfig(), adapter.spec),
        pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(levels=[0.5, 1.0], hidden=32), adapter.spec),
        prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(width=32, hidden=32), adapter.spec),
    ).eval()


def act(model, sample):
    return model.predict(model.collate([sample], train=False))


def pointed(sample, camera, x, y):
    return replace(sample, prompts={camera: (Point(x, y),)})


def masked(sample, camera, rows, columns):
    mask = np.zeros(sample.images[camera].shape[:2], bool)
    mask[rows, columns] = True
    return replace(sample, masks={camera: mask[None]})


def test_moving_a_point_changes_the_action(model, samples):
    plain = act(model, samples[0])
    near, far = (act(model, pointed(samples[0], "front", *place)) for place in ((0.2, 0.3), (0.8, 0.6)))
    assert torch.equal(plain, act(model, samples[0]))
    assert not torch.equal(near, plain)
    assert not torch.equal(near, far)


def test_moving_a_mask_changes_the_action(model, samples):
    first, second = (
        act(model, masked(samples[0], "front", slice(10, 30), columns)) for columns in (slice(5, 30), slice(80, 110))
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("own", "other"), [("front", "wrist"), ("wrist", "front")])
def test_prompts_and_masks_stand_behind_their_own_camera_and_read_no_other(model, samples, own, other):
    sample = masked(pointed(samples[0], own, 0.3, 0.4), own, slice(10, 30), slice(20, 50))
    batch = model.collate([sample], train=False)
    changed = {**sample.images, other: 255 - sample.images[other]}
    moved = model.collate([replace(sample, images=changed)], train=False)
    prefix, again = model.prefix(batch), model.prefix(moved)
    order = [prefix.names[index] for index in dict.fromkeys(prefix.span_BS[0].tolist())]
    at = order.index(f"image:{own}")
    assert order[at + 1 : at + 3] == [f"pixel:{own}", f"prompt:{own}"]
    assert not {f"pixel:{other}", f"prompt:{other}"} & set(order)
    for name in (f"pixel:{own}", f"prompt:{own}", f"image:{own}"):
        assert torch.equal(prefix.read(name, prefix.tokens_BSD), again.read(name, again.tokens_BSD)), name
    assert not torch.equal(act(model, sample), act(model, pointed(samples[0], other, 0.3, 0.4)))


def test_a_chunk_takes_one_vision_pass_per_camera_and_reads_the_prefix_once(model, samples):
    inner, counts = model.base.model.vlm_with_expert, {"tower": 0, "prefix": 0, "expert": 0}
    watched = {
        "tower": inner.vlm.model.vision_model.encoder.layers[0],
        "prefix": inner.vlm.model.text_model.layers[0].mlp,
        "expert": inner.lm_expert.layers[0].mlp,
    }

    def count(name):
        return lambda *_: counts.__setitem__(name, counts[name] + 1)

    handles = [module.register_forward_hook(count(name)) for name, module in watched.items()]
    try:
        act(model, pointed(masked(samples[0], "wrist", slice(0, 9), slice(0, 9)), "front", 0.5, 0.5))
    finally:
        for handle in handles:
            handle.remove()
    assert counts == {"tower": 2, "prefix": 1, "expert": model.base.config.num_steps}


def test_a_level_is_the_mean_of_the_patches_of_a_token(model, samples):
    """The connector's pixel shuffle and the levels agree on which patches a token is made of."""
    batch, adapter = model.collate(samples, train=False), model.backbone
    vlm = adapter.module.model.vlm_with_expert.get_vlm_model()
    seen = {}
    handle = vlm.vision_model.encoder.layers[-1].register_forward_hook(
        lambda _module, _inputs, output: seen.setdefault("patches", output)
    )
    features = adapter.features(batch, (1.0,))
    handle.remove()
    C, scale = adapter.spec.level_width, vlm.connector.scale_factor
    shuffled = vlm.connector.pixel_shuffle(seen["patches"].contiguous(), scale)
    wanted = shuffled.unflatten(-1, (scale**2, C)).mean(2)
    assert features.tokens["front"].shape[1] == wanted.shape[1] == 16
    torch.testing.assert_close(features.levels["front"][0], wanted)


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([64, 128, 512]))
def test_the_letterbox_is_where_lerobot_puts_the_image(width, height, side):
    from lerobot.policies.common.vla_utils import resize_with_pad

    padded = resize_with_pad(torch.ones(1, 1, height, width), side, side, pad_value=0.0)[0, 0]
    rows, columns = torch.nonzero(padded, as_tuple=True)
    affine = geometry(np.zeros((height, width, 3), np.uint8), side)
    (left, top), (right, bottom) = affine(0, 0), affine(1, 1)
    assert [left * side, top * side] == [columns.min().item(), rows.min().item()]
    assert [right * side, bottom * side] == [columns.max().item() + 1, rows.max().item() + 1]


def test_an_image_too_long_to_be_scaled_is_refused_in_words():
    with pytest.raises(UserError, match=r"nothing of its shorter side is left. Crop it"):
        geometry(np.zeros((1, 1000, 3), np.uint8), 64)


def test_fixed_noise_makes_a_chunk_depend_on_its_sample_alone(model, samples):
    torch.manual_seed(1)
    together = model.predict(model.collate(samples, train=False))
    torch.manual_seed(2)
    alone = torch.cat([act(model, sample) for sample in reversed(samples)]).flip(0)
    torch.testing.assert_close(together, alone)
    other = act(model, replace(samples[0], key="another"))
    assert not torch.allclose(other, together[:1], atol=1e-3)


def test_nothing_is_left_behind_in_lerobots_objects(model, samples):
    core = model.base.model
    before = dict(vars(core)), dict(vars(core.vlm_with_expert)), core.config.num_steps
    model.loss(model.collate(samples, train=True))
    batch = model.collate(samples, train=False)
    model.backbone.flow_sample(model.prefix(batch), batch, torch.zeros(3, 5, 32), 2)
    assert (dict(vars(core)), dict(vars(core.vlm_with_expert)), core.config.num_steps) == before
    assert not any(block._forward_hooks for block in core.vlm_with_expert.vlm.model.vision_model.encoder.layers)
