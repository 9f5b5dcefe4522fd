"""8-bit and 4-bit weights. bitsandbytes is optional; where it is installed, the real thing is tested."""

from __future__ import annotations

import sys

import pytest
import torch
from pixelvla_openvla import OpenVLA
from pixelvla_openvla.quantize import quantize_blocks

from pixelvla_core.api import UserError


@pytest.fixture
def folder(small_config, tmp_path):
    """A model whose linear layers are wide enough to pack."""
    small_config["text_config"] |= {"hidden_size": 128, "intermediate_size": 256}
    OpenVLA.from_config(small_config).save_pretrained(tmp_path / "base", dtype="float32")
    return tmp_path / "base"


def test_without_bitsandbytes_the_error_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"pip install 'bitsandbytes>=0\.46'"):
        OpenVLA.from_pretrained(folder, quantize="8bit")


def test_an_unknown_kind_is_refused(folder):
    with pytest.raises(UserError, match="'2bit'; expected '8bit' or '4bit'"):
        quantize_blocks(torch.nn.Module(), "2bit")


@pytest.mark.parametrize(("kind", "stored", "cosine"), [("8bit", torch.int8, 0.999), ("4bit", torch.uint8, 0.98)])
def test_packed_weights_compute_almost_the_same(folder, kind, stored, cosine):
    pytest.importorskip("bitsandbytes")
    plain, packed = OpenVLA.from_pretrained(folder), OpenVLA.from_pretrained(folder, quantize=kind)
    linear = packed.language_model.model.layers[0].mlp.up_proj
    assert linear.weight.dtype == stored
    assert packed.projector.fc1.weight.dtype == packed.language_model.lm_head.weight.dtype == torch.float32
    ids, pixels = torch.tensor([[1, 9, 10, 3]]), torch.randn(1, 6, 56, 56)
    with torch.no_grad():
        a, b = plain(ids, None, pixels).last_hidden_state, packed(ids, None, pixels).last_hidden_state
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > cosine
    assert packed.predict_action(ids, pixels).shape == (1, 4)
    with pytest.raises(UserError, match="cannot be saved"):
        packed.save_pretrained(folder)
