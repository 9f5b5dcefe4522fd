"""A policy that is only evaluated carries LoRA in the base's weights, where that changes nothing but rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.evaluate.policy import lighter
from pixelvla_core.model import lora
from pixelvla_core.model.action_head import L1ActionHead
from pixelvla_core.model.config import ActionHeadConfig
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.testing import example_samples


@pytest.fixture
def model() -> PixelVLA:
    """A small model whose LoRA has learned something."""
    adapter = build(ThirdPartyConfig(), weights=None)
    torch.manual_seed(0)
    lora.inject(adapter.module, [adapter.spec.groups["llm"]], rank=4, alpha=8.0)
    for name, parameter in adapter.module.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return PixelVLA(adapter, L1ActionHead(ActionHeadConfig(), adapter.spec, horizon=2, dim=7)).eval()


def predicted(model: PixelVLA) -> np.ndarray:
    return model.predict(model.collate(example_samples(model.backbone.spec), train=False)).numpy()


def test_lora_moves_into_float32_weights(model):
    before, plain = predicted(model), {k: v.clone() for k, v in lora.base_state_dict(model.base).items()}
    lighter(model)
    assert not any(lora.is_lora(name) for name, _ in model.base.named_parameters())
    np.testing.assert_allclose(predicted(model), before, atol=1e-5)
    lora_mattered = any(not torch.equal(tensor, plain[name]) for name, tensor in model.base.state_dict().items())
    assert lora_mattered


def test_lora_stays_beside_weights_that_would_round_it_away(model):
    model.base.to(torch.bfloat16)
    names = [name for name, _ in model.base.named_parameters()]
    assert [name for name, _ in lighter(model).base.named_parameters()] == names


def test_lora_stays_beside_a_base_that_rounding_tips_over(model, monkeypatch):
    """Such as one that chooses between two tokens of nearly one likelihood."""

    def tipped(batch):
        merged = any(layer.merged for layer in lora.layers(model.base).values())
        return torch.full((1, 2, 7), 1.0 if merged else -1.0)

    before = predicted(model)
    with monkeypatch.context() as patch:
        patch.setattr(model, "predict", tipped)
        assert lighter(model) is model
    assert any(lora.is_lora(name) for name, _ in model.base.named_parameters())
    np.testing.assert_array_equal(predicted(model), before)
