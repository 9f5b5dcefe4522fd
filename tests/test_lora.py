"""LoRA: which layers, identity at the start, scaling, merging with a parity check, the base's own names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig
from torch import nn

from pixelvla_core.errors import RecipeError, UserError
from pixelvla_core.model import lora
from pixelvla_core.testing import example_samples
from pixelvla_core.testing.subject import Subject

PER_BLOCK = ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.0", "mlp.2")


def subject() -> Subject:
    adapter = build(ThirdPartyConfig(), weights=None)
    return Subject(adapter, example_samples(adapter.spec))


def inject(one: Subject, **options) -> list[str]:
    settings = {"rank": 4, "alpha": 8.0, **options}
    return lora.inject(one.adapter.module, [one.spec.groups["llm"]], **settings)


def stir(one: Subject) -> None:
    """Give B values, as training would."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in one.adapter.module.named_parameters():
        if ".lora_B." in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def hidden(one: Subject) -> torch.Tensor:
    return one.adapter.hidden(one.prefix())


def test_it_adapts_every_linear_layer_of_the_group_and_no_other():
    one = subject()
    targets = inject(one)
    # The vision tower has layers of the same last names, which peft would match by a list of names.
    assert sorted(targets) == sorted(f"blocks.{i}.{name}" for i in range(2) for name in PER_BLOCK)
    adapted = {name.split(".lora_")[0] for name, _ in one.adapter.module.named_parameters() if lora.is_lora(name)}
    assert adapted == set(targets)
    model = one.wrap()
    assert not any(lora.is_lora(name) for name, _ in model.named_parameters() if not name.startswith("base."))


def test_it_is_an_identity_until_it_is_trained_and_the_same_for_one_seed():
    one, same, other = subject(), subject(), subject()
    before = hidden(one)
    for each, seed in ((one, 3), (same, 3), (other, 4)):
        state = torch.get_rng_state()
        inject(each, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(hidden(one), before)
    first, second, third = (lora_a(each) for each in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def lora_a(one: Subject) -> torch.Tensor:
    return torch.cat([p.flatten() for name, p in one.adapter.module.named_parameters() if ".lora_A." in name])


def test_the_update_is_b_a_scaled_by_alpha_over_rank():
    one = subject()
    weight = one.adapter.module.blocks[0].mlp[0].weight.detach().clone()
    inject(one, rank=4, alpha=6.0)
    stir(one)
    layer = one.adapter.module.blocks[0].mlp[0]
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(1))
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 6.0 / 4
    expected = x @ (weight + update).T + layer.get_base_layer().bias
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_over_a_base_in_bfloat16_it_learns_in_float32_and_is_an_identity_too():
    one = subject()
    one.adapter.module.bfloat16()
    before = hidden(one)
    inject(one)
    assert {p.dtype for name, p in one.adapter.module.named_parameters() if lora.is_lora(name)} == {torch.float32}
    assert torch.equal(hidden(one), before)
    stir(one)
    assert hidden(one).dtype == torch.bfloat16
    assert not torch.equal(hidden(one), before)


def test_it_is_injected_once():
    one = subject()
    inject(one)
    with pytest.raises(RecipeError, match="already"):
        inject(one)


def test_groups_without_linear_layers_are_refused():
    one = subject()
    with pytest.raises(RecipeError, match="none there"):
        lora.inject(one.adapter.module, [r"embedding\..*"], rank=2, alpha=2.0)
    assert not any(lora.is_lora(name) for name in one.adapter.module.state_dict())


def test_the_bases_own_names_and_values_can_be_told_apart():
    one = subject()
    before = {name: tensor.clone() for name, tensor in one.adapter.module.state_dict().items()}
    inject(one)
    stir(one)
    own = lora.base_state_dict(one.adapter.module)
    assert own.keys() == before.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in before.items())


def test_merging_gives_the_same_outputs_and_saves_as_a_plain_base(tmp_path):
    one = subject()
    inject(one)
    stir(one)
    adapted = hidden(one)
    assert lora.merge(one.adapter.module, lambda: hidden(one)) < 1e-5
    assert torch.allclose(hidden(one), adapted, atol=1e-4)
    one.wrap().save_base(tmp_path)
    assert any(lora.is_lora(name) for name in one.adapter.module.state_dict())
    again = replace(one, adapter=build(ThirdPartyConfig(), weights=str(tmp_path)))
    assert torch.allclose(hidden(again), adapted, atol=1e-4)


def test_saving_that_fails_leaves_lora_in_place(tmp_path):
    one = subject()
    inject(one)
    stir(one)
    adapted, names = hidden(one), list(one.adapter.module.state_dict())
    (tmp_path / "config.json").mkdir()
    with pytest.raises(IsADirectoryError):
        one.wrap().save_base(tmp_path)
    assert list(one.adapter.module.state_dict()) == names
    assert torch.equal(hidden(one), adapted)


def test_a_merge_that_would_change_the_model_is_taken_back():
    """In bfloat16, an update far below the weights' resolution is lost by merging."""
    one = subject()
    one.adapter.module.bfloat16()
    inject(one)
    stir(one)
    weights = {name: tensor.clone() for name, tensor in one.adapter.module.state_dict().items()}
    with pytest.raises(UserError, match="nothing was merged"):
        lora.merge(one.adapter.module, lambda: hidden(one), tolerance=1e-6)
    after = one.adapter.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert not any(layer.merged for layer in lora.layers(one.adapter.module).values())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", ["merging the third layer", "probing what was merged"])
def test_a_merge_that_breaks_down_is_taken_back(moment, error, monkeypatch):
    one = subject()
    inject(one)
    stir(one)
    weights = {name: tensor.clone() for name, tensor in one.adapter.module.state_dict().items()}
    found = list(lora.layers(one.adapter.module).values())

    def probe():
        if found[-1].merged:
            raise error
        return hidden(one)

    def broken(*arguments, **options):
        raise error

    if moment == "merging the third layer":
        monkeypatch.setattr(found[2], "merge", broken)
    with pytest.raises(error):
        lora.merge(one.adapter.module, probe)
    after = one.adapter.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert not any(layer.merged for layer in found)


def test_removing_it_restores_the_base():
    one = subject()
    names, before = list(one.adapter.module.state_dict()), hidden(one)
    inject(one)
    stir(one)
    lora.remove(one.adapter.module)
    assert list(one.adapter.module.state_dict()) == names
    assert torch.equal(hidden(one), before)
    inject(one)  # and it can be injected again


def test_only_its_dropout_is_on_when_it_alone_trains():
    from pixelvla_core.model import freeze

    one = subject()
    model = one.wrap()
    inject(one, dropout=0.5)
    stir(one)
    freeze.apply(model, ["lora"])
    model.train()
    modes = {name: module.training for name, module in model.base.named_modules()}
    assert modes["blocks.0.attention.q.lora_dropout.default"]
    assert modes["blocks.0"]  # gradient checkpointing asks the block
    assert not modes["blocks.0.dropout"]
    assert not any(mode for name, mode in modes.items() if name.startswith("tower"))
    freeze.apply(model, ["head"])
    assert not any(module.training for module in model.base.modules())


class FunctionalAttention(nn.Module):
    """An attention as transformers writes them: its dropout is no module but follows its own mode."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(4, 4)

    def forward(self, x):
        return nn.functional.dropout(self.q(x), 0.5, self.training)


def test_dropout_that_is_no_module_stays_off_too_while_the_base_is_frozen():
    from pixelvla_core.model import freeze

    base = nn.Sequential(nn.Sequential(FunctionalAttention()))
    lora.inject(base, [r".*\.q\.weight"], rank=2, alpha=2.0)
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(lora.is_lora(name))
    freeze.set_mode(base, True)
    x = torch.ones(8, 4)
    assert torch.equal(base(x), base(x))
    assert base[0].training  # the block, which gradient checkpointing asks
    base.requires_grad_(True)
    freeze.set_mode(base, True)
    assert not torch.equal(base(x), base(x))
