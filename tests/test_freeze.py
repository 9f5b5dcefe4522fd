"""The freeze plan: everything off, then the listed groups on."""

from __future__ import annotations

import itertools

import pytest
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.errors import RecipeError
from pixelvla_core.model import freeze, lora
from pixelvla_core.model.config import NativeHeadConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.testing import example_samples
from pixelvla_core.testing.subject import Subject

BASE = {"vision": "tower.", "projector": "projector.", "action_io": "action."}


def model(with_lora: bool = True) -> PixelVLA:
    adapter = build(ThirdPartyConfig(), weights=None)
    if with_lora:
        lora.inject(adapter.module, [adapter.spec.groups["llm"]], rank=2, alpha=2.0)
    return Subject(adapter, example_samples(adapter.spec)).wrap()


def group_of(name: str) -> str:
    """The group of a parameter, told apart by hand."""
    for part, group in (("pixel_encoder", "pixel"), ("prompt_encoder", "prompt"), ("head", "head")):
        if name.startswith(f"{part}."):
            return group
    if ".lora_" in name:
        return "lora"
    return next((group for group, start in BASE.items() if name.startswith(f"base.{start}")), "llm")


GROUPS = ("pixel", "prompt", "head", "lora", "vision", "projector", "llm", "action_io")


def test_exactly_the_listed_groups_train():
    one = model()
    for count in (1, 2, 4):
        for chosen in itertools.islice(itertools.combinations(GROUPS, count), 8):
            freeze.apply(one, chosen)
            for name, parameter in one.named_parameters():
                assert parameter.requires_grad == (group_of(name) in chosen), name


def test_the_table_counts_every_parameter_once():
    one = model()
    rows = freeze.apply(one, ["pixel", "head"])
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in one.parameters())
    assert sum(row.tensors for row in rows) == len(list(one.parameters()))
    assert {row.group for row in rows if row.trained} == {"pixel", "head"}
    assert {row.group for row in rows} == set(GROUPS)


def test_what_belongs_to_no_group_is_shown_and_stays_frozen():
    one = model()
    groups = dict(one.backbone.spec.groups)
    groups.pop("projector")
    object.__setattr__(one.backbone.spec, "groups", groups)
    rows = {row.group: row for row in freeze.apply(one, ["vision"])}
    assert rows["other"].tensors == 2
    assert not rows["other"].trained
    assert not one.base.projector.weight.requires_grad


@pytest.mark.parametrize(
    ("group", "said"),
    [("pixels", "Did you mean 'pixel'"), ("expert", "does not have"), ("other", "does not have")],
)
def test_unknown_groups_are_refused_and_change_nothing(group, said):
    one = model()
    freeze.apply(one, ["head"])
    before = [p.requires_grad for p in one.parameters()]
    with pytest.raises(RecipeError, match=said):
        freeze.apply(one, ["pixel", group])
    assert [p.requires_grad for p in one.parameters()] == before


def test_empty_groups_are_refused_with_the_remedy():
    one = model(with_lora=False)
    with pytest.raises(RecipeError, match=r"lora\.rank"):
        freeze.apply(one, ["lora"])
    bare = PixelVLA(one.backbone, NativeHead(NativeHeadConfig(), one.backbone.spec))
    for group, remedy in (("pixel", "pixel_encoder"), ("prompt", "prompt_encoder"), ("head", "native has none")):
        with pytest.raises(RecipeError, match=remedy):
            freeze.apply(bare, [group])
