"""Our numbers against the official code's, and that the comparison is sharp enough to notice each known mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixelvla_openvla import vision
from torch import nn

FEATURES, HIDDEN, LOGITS = 1e-5, 1e-5, 5e-5


def distance(a, b) -> float:
    return float((a - b).abs().max())


@torch.no_grad()
def deviations(model, reference, pixels=None) -> dict[str, float]:
    """Largest absolute difference of features, last hidden states and logits."""
    pixels = reference["in.pixel_values"] if pixels is None else pixels
    out = model(reference["in.input_ids"], reference["in.attention_mask"], pixels)
    return {
        "features": distance(model.vision_features(pixels), reference["vision.patch_features"]),
        "hidden": distance(out.last_hidden_state, reference["forward.hidden_states.2"]),
        "logits": distance(out.logits[..., 31744:32000], reference["forward.logits_action_cols"]),
    }


def test_the_numbers_are_the_official_ones(official, reference):
    found = deviations(official, reference)
    assert found["features"] <= FEATURES
    assert found["hidden"] <= HIDDEN
    assert found["logits"] <= LOGITS


@torch.no_grad()
def test_logits_cover_the_whole_padded_vocabulary(official, reference):
    out = official(reference["in.input_ids"], reference["in.attention_mask"], reference["in.pixel_values"])
    assert out.logits.shape == (2, 279, 32064)
    assert distance(out.logits[:, -1], reference["forward.logits_last"]) <= LOGITS
    assert distance(out.logits.logsumexp(-1), reference["forward.logits_logsumexp"]) <= LOGITS
    assert torch.equal(out.logits.argmax(-1), reference["forward.logits_argmax"])


@torch.no_grad()
def test_projector_and_fused_embeddings(official, reference):
    projected = official.project(reference["vision.patch_features"])
    assert distance(projected, reference["projector.out"]) <= 1e-5
    ids = reference["in.input_ids"]
    prefix = official.prefix(ids, torch.ones_like(ids, dtype=torch.bool), {"front": projected})
    assert distance(prefix.tokens_BSD, reference["forward.hidden_states.0"]) <= 1e-5


@torch.no_grad()
def test_right_padding_is_the_official_one(official, reference):
    out = official(
        reference["in_padded.input_ids"], reference["in_padded.attention_mask"], reference["in.pixel_values"]
    )
    wanted = reference["forward_padded.hidden_states.2"]
    assert distance(out.last_hidden_state[out.valid], wanted[out.valid]) <= HIDDEN
    assert out.valid.sum(1).tolist() == (reference["in_padded.attention_mask"].sum(1) + 256).tolist()
    wanted = reference["forward_padded.logits_logsumexp"][out.valid]
    assert distance(out.logits.logsumexp(-1)[out.valid], wanted) <= LOGITS


def test_training_loss_is_the_official_one(official, reference):
    loss = official.loss(reference["train.input_ids"], reference["in.pixel_values"], reference["train.labels"])
    assert abs(float(loss.detach()) - float(reference["train.loss"])) <= 1e-5


def test_batch_builder_makes_the_official_training_rows(official, reference):
    prompts = reference["in.input_ids"].tolist()
    ids = reference["train.input_ids"][:, -8:-1].numpy()
    batch = official.teacher_forcing([prompts[0][:-1], prompts[1]], official.actions.decode(ids))
    # 31744 and 31745 mean the same value, which is encoded as 31745.
    canonical = reference["train.input_ids"].masked_fill(reference["train.input_ids"] == 31744, 31745)
    assert torch.equal(batch["input_ids"], canonical)
    assert torch.equal(batch["labels"] == -100, reference["train.labels"] == -100)
    assert batch["attention_mask"].all()


@pytest.mark.parametrize("sample", [0, 1])
def test_predicted_actions_are_the_official_ones(official, reference, sample):
    one = slice(sample, sample + 1)
    ids, pixels = reference["in.input_ids"][one], reference["in.pixel_values"][one]
    assert torch.equal(official.generate(ids, pixels, 7)[0], reference[f"predict.{sample}.generated_ids"])
    action = official.predict_action(ids, pixels, "bridge_orig")
    assert action.dtype == np.float64
    assert action.shape == (1, 7)
    assert np.abs(action[0] - reference[f"predict.{sample}.action"].numpy()).max() <= 1e-12


@torch.no_grad()
def test_cached_steps_give_the_official_logits(official, reference):
    ids = reference["in.input_ids"]
    images = {"front": official.image_tokens(reference["in.pixel_values"])[0]}
    hidden, past = official.run(official.prefix(ids, torch.ones_like(ids).bool(), images), keep=True)
    for step in range(7):
        logits = official.language_model.lm_head(hidden[:, -1])[:, 31744:32000]
        for sample in range(2):
            assert distance(logits[sample], reference[f"predict.{sample}.step_logits"][step]) <= LOGITS
        fed = torch.stack([reference[f"predict.{sample}.generated_ids"][step] for sample in range(2)])
        token = official.embed(fed[:, None])
        hidden, past = official.run(type(official.prefix(ids, ids > 0, images)).of("answer", token), past, keep=True)


# --- each known mistake, made on purpose ------------------------------------------------------------------------------


def _block_shift(by):
    def make(model, monkeypatch):
        plain = vision._blocks
        monkeypatch.setattr(vision, "_blocks", lambda tower, x, wanted: plain(tower, x, [i + by for i in wanted]))

    return make


def _final_norm(model, monkeypatch):
    plain = vision._blocks
    monkeypatch.setattr(vision, "_blocks", lambda tower, x, wanted: [tower.norm(f) for f in plain(tower, x, wanted)])


def _siglip_first(model, monkeypatch):
    plain = vision.VisionBackbone.forward
    swapped = lambda self, x, levels=(): (torch.roll(plain(self, x)[0], 32, dims=-1), [])  # noqa: E731
    monkeypatch.setattr(vision.VisionBackbone, "forward", swapped)


def _grid_transposed(model, monkeypatch):
    for tower in model.vision_backbone.towers:
        grid = tower.pos_embed.data.view(1, 16, 16, -1).transpose(1, 2)
        tower.pos_embed.data.copy_(grid.reshape(1, 256, -1))


def _layer_scale_not_loaded(model, monkeypatch):
    for name, value in model.vision_backbone.named_parameters():
        if name.endswith("gamma"):
            value.data.fill_(1e-5)


def _zero(name):
    return lambda model, monkeypatch: getattr(model.vision_backbone.featurizer, name).data.zero_()


def _tanh_in_towers(model, monkeypatch):
    for tower in model.vision_backbone.towers:
        for block in tower.blocks:
            block.mlp.act = nn.GELU("tanh")


def _tanh_in_projector(model, monkeypatch):
    model.projector.act = nn.GELU("tanh")


def _tower_eps(model, monkeypatch):
    for module in model.vision_backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def _llama_eps(model, monkeypatch):
    for module in model.language_model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5


def _reordered(order):
    def make(model, monkeypatch):
        plain = type(model).prefix

        def moved(self, *arguments):
            prefix = plain(self, *arguments)
            tokens = prefix.tokens_BSD
            parts = {"bos": tokens[:, :1], "image": tokens[:, 1:257], "text": tokens[:, 257:]}
            return replace(prefix, tokens_BSD=torch.cat([parts[name] for name in order], dim=1))

        monkeypatch.setattr(type(model), "prefix", moved)

    return make


MISTAKES = {
    "last block": (_block_shift(1), "features"),
    "third-to-last block": (_block_shift(-1), "features"),
    "final norm applied": (_final_norm, "features"),
    "SigLIP first": (_siglip_first, "features"),
    "positions transposed": (_grid_transposed, "features"),
    "LayerScale not loaded": (_layer_scale_not_loaded, "features"),
    "registers zero": (_zero("reg_token"), "features"),
    "class token zero": (_zero("cls_token"), "features"),
    "tanh GELU in the towers": (_tanh_in_towers, "features"),
    "LayerNorm eps 1e-5": (_tower_eps, "features"),
    "tanh GELU in the projector": (_tanh_in_projector, "hidden"),
    "RMSNorm eps 1e-5": (_llama_eps, "hidden"),
    "patches before BOS": (_reordered(["image", "bos", "text"]), "logits"),
    "patches at the end": (_reordered(["bos", "text", "image"]), "logits"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_known_mistake_would_be_noticed(official, reference, monkeypatch, mistake):
    make, measure = MISTAKES[mistake]
    make(official, monkeypatch)
    limit = {"features": FEATURES, "hidden": HIDDEN, "logits": LOGITS}[measure]
    assert deviations(official, reference)[measure] > 2 * limit


def test_swapped_channel_groups_would_be_noticed(official, reference):
    swapped = reference["in.pixel_values"].roll(3, dims=1)
    assert deviations(official, reference, swapped)["features"] > 3 * FEATURES


def test_leaving_out_the_empty_id_changes_the_answer(official, reference):
    """So that the test of the next file, that it is appended, has something to prove."""
    ids, pixels = reference["in.input_ids"], reference["in.pixel_values"]
    with torch.no_grad():
        with_it = official(ids, None, pixels).logits[:, -1]
        without = official(ids[:, :-1], None, pixels).logits[:, -1]
    assert distance(with_it, without) > 1.0
