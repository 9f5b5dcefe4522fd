"""Batches, padding and feature levels: whatever stands beside a row, its numbers stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixelvla_openvla.openvla import pad

from pixelvla_core.api import Prefix, UserError

TOLERANCE = 2e-6
fast = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROMPTS = st.lists(st.lists(st.integers(4, 383), min_size=1, max_size=9), min_size=1, max_size=4)


def pixels(rows, seed=0):
    return torch.randn(rows, 6, 56, 56, generator=torch.Generator().manual_seed(seed))


def padded_left(prompts, fill):
    longest = max(map(len, prompts))
    ids = torch.tensor([[fill] * (longest - len(p)) + p for p in prompts])
    return ids, torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])


@fast
@given(PROMPTS, st.sampled_from(["left", "right"]))
def test_a_batch_gives_what_its_rows_give_alone(small, prompts, side):
    prompts = [[1, *prompt] for prompt in prompts]
    if side == "left":
        ids, mask = padded_left(prompts, 384)
    else:
        ids, mask = small.pad_prompts(prompts).values()
    images = pixels(len(prompts))
    with torch.no_grad():
        whole = small(ids, mask, images)
        for row, prompt in enumerate(prompts):
            alone = small(torch.tensor([prompt]), None, images[row : row + 1])
            valid = whole.valid[row]
            assert (whole.last_hidden_state[row, valid] - alone.last_hidden_state[0]).abs().max() <= TOLERANCE
            assert (whole.logits[row, valid] - alone.logits[0]).abs().max() <= TOLERANCE


@fast
@given(PROMPTS, st.sampled_from(["left", "right"]), st.lists(st.booleans(), min_size=4, max_size=4))
def test_actions_of_a_batch_are_those_of_its_rows(small, prompts, side, with_empty):
    """Also when some prompts end in the empty id and others do not."""
    bare = [[1, *prompt] for prompt in prompts]
    given_ids = [[*p, 3] if extra and p[-1] != 3 else p for p, extra in zip(bare, with_empty, strict=False)]
    if side == "left":
        ids, mask = padded_left(given_ids, 384)
    else:
        ids, mask = small.pad_prompts(given_ids).values()
    images = pixels(len(bare))
    together = small.predict_action(ids, images, "table", attention_mask=mask)
    alone = [small.predict_action(torch.tensor([p]), images[i : i + 1]) for i, p in enumerate(bare)]
    assert together.shape == (len(bare), 4)
    assert np.array_equal(together, np.concatenate(alone))


def test_the_empty_id_is_appended_once(official, reference):
    ids, images = reference["in.input_ids"], reference["in.pixel_values"]
    with_it = official.predict_action(ids, images, "bridge_orig")
    mask = torch.ones_like(ids[:, :-1])
    assert np.array_equal(with_it, official.predict_action(ids[:, :-1], images, "bridge_orig"))
    assert np.array_equal(with_it, official.predict_action(ids[:, :-1], images, "bridge_orig", attention_mask=mask))


@fast
@given(st.integers(1, 6), st.integers(0, 1000))
def test_cached_steps_are_one_uncached_pass(small, steps, seed):
    ids, images = torch.tensor([[1, 9, 12, 3]]), pixels(1, seed)
    found = small.generate(ids, images, steps)
    with torch.no_grad():
        logits = small(torch.cat([ids, found], 1), None, images).logits[0, -steps - 1 : -1]
    assert logits.argmax(-1).tolist() == found[0].tolist()


def test_end_of_sequence_is_no_stop(small):
    """Upstream would read actions out of the prompt; here an id that is no action id gives the nearest end."""
    head = small.language_model.lm_head = torch.nn.Linear(32, 448)
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.eye(448)[2]
    ids = small.generate(torch.tensor([[1, 9, 3]]), pixels(1), 4)
    assert ids.tolist() == [[2, 2, 2, 2]]
    assert small.predict_action(torch.tensor([[1, 9, 3]]), pixels(1))[0, 3] == small.actions.centers[-1]


def test_a_mask_of_another_shape_is_refused(small):
    with pytest.raises(UserError, match=r"\(1, 2\), input_ids \(1, 3\)"):
        small(torch.tensor([[1, 9, 3]]), torch.ones(1, 2), pixels(1))
    with pytest.raises(UserError, match="no valid id"):
        small(torch.tensor([[1, 9, 3]]), torch.zeros(1, 3), pixels(1))


def test_pixels_of_another_number_of_channels_are_refused(small):
    with pytest.raises(UserError, match="reads 6 channels; pixel_values has 3"):
        small.vision_features(pixels(1)[:, :3])


def test_inputs_prepare_what_predict_action_takes(small):
    images = [np.full((40, 60, 3), value, np.uint8) for value in (0, 200)]
    batch = small.inputs(images, ["open the drawer", "put a red cube on the plate"])
    assert batch["attention_mask"].sum(1).tolist() == [len(small.tokenizer(t)[0]) for t in ("a b c", "a b c d e f g")]
    action = small.predict_action(**batch)
    assert action.shape == (2, 4)
    assert (np.abs(action[:, :3]) <= 0.5).all()


def test_training_lowers_the_loss_and_leaves_unused_parts_without_gradient(small):
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 4))
    batch = small.teacher_forcing([[1, 9], [1, 9, 10], [1, 11], [1, 12, 13, 14]], actions)
    images, optimizer = pixels(4), torch.optim.AdamW(small.train().parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = small.loss(pixel_values=images, **batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    idle = {name.rsplit(".", 1)[0] for name, value in small.named_parameters() if value.grad is None}
    assert {name.split(".")[1] for name in idle} == {"featurizer", "fused_featurizer"}
    assert {".".join(name.split(".")[2:4]) for name in idle} == {"blocks.3", "blocks.4", "norm"}


def test_padding_never_reaches_the_loss(small):
    batch = small.teacher_forcing([[1, 9], [1, 9, 10, 11, 12]], np.zeros((2, 4)))
    images = pixels(2)
    loss = small.loss(pixel_values=images, **batch)
    other = {**batch, "input_ids": torch.where(batch["attention_mask"] == 0, 77, batch["input_ids"])}
    assert torch.equal(loss, small.loss(pixel_values=images, **other))
    assert pad([[1], [2, 3]], 0).tolist() == [[1, 0], [2, 3]]


def test_levels_end_at_the_block_that_the_projector_reads(small):
    with torch.no_grad():
        features, levels = small.vision_backbone(pixels(2), levels=(0.25, 0.5, 0.75, 1.0))
        tower = small.vision_backbone.fused_featurizer
        blocks = tower.forward_intermediates(pixels(2)[:, 3:], norm=False, output_fmt="NLC", intermediates_only=True)
    assert features.shape == (2, 16, 24 + 32)
    assert torch.equal(levels[-1], features[..., 24:])
    assert [int(torch.stack([(level - b).abs().max() for b in blocks]).argmin()) for level in levels] == [0, 1, 2, 3]
    assert all(torch.equal(level, blocks[i]) for i, level in enumerate(levels))


def test_asking_for_levels_changes_no_feature(small):
    with torch.no_grad():
        assert torch.equal(small.vision_backbone(pixels(1))[0], small.vision_backbone(pixels(1), levels=(0.1, 0.5))[0])


def test_a_single_tower_model_works(small_config):
    """The v0.1 layout: one tower, a projector of two layers."""
    from pixelvla_openvla import OpenVLA

    one = {**small_config, "towers": small_config["towers"][1:], "image_sizes": [56]}
    model = OpenVLA.from_config(one).eval()
    assert not any("fc3" in name or "fused" in name for name in model.state_dict())
    assert model.predict_action(torch.tensor([[1, 9]]), pixels(1)[:, :3]).shape == (1, 4)


def test_checkpointing_gives_the_same_loss_and_refuses_a_past(small):
    batch = small.teacher_forcing([[1, 9]], np.zeros((1, 4)))
    plain = small.train().loss(pixel_values=pixels(1), **batch)
    small.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = small.loss(pixel_values=pixels(1), **batch)
    loss.backward()
    assert torch.allclose(plain, loss)
    with pytest.raises(UserError, match="checkpointing"):
        small.run(Prefix.of("text", torch.zeros(1, 2, 32)), keep=True)
