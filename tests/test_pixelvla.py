"""PixelVLA: order of tokens, the invariant, splices, painting, and from a recipe to a model.

Shapes: B batch, S sequence, H horizon, A action dim.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.errors import ContractError, PluginError, RecipeError, UserError
from pixelvla_core.model.assemble import assemble
from pixelvla_core.model.config import NativeHeadConfig, OverlayConfig
from pixelvla_core.model.native_head import NativeHead
from pixelvla_core.model.overlay import OverlayPromptEncoder
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.prompts import Box, Mask, Point
from pixelvla_core.recipe.schema import Action, Backbone, Lora, Part, Recipe
from pixelvla_core.testing import example_samples
from pixelvla_core.testing.subject import HORIZON, Subject, with_actions


def subject(**options) -> Subject:
    adapter = build(ThirdPartyConfig(**options), weights=None)
    return Subject(adapter, example_samples(adapter.spec))


def with_splice(one: Subject, splice: str) -> PixelVLA:
    model = one.wrap()
    model.splice = splice
    return model


REGION = np.zeros((120, 160), bool)
REGION[30:60, 40:80] = True


def prompted(one: Subject, camera: str = "front") -> list:
    """The second sample has a point, the third a box and two masks, the first nothing."""
    first, second, third = one.samples
    return [
        first,
        replace(second, prompts={camera: (Point(0.5, 0.5),)}),
        replace(third, prompts={camera: (Box(0.1, 0.1, 0.5, 0.5),)}, masks={camera: np.stack([REGION, ~REGION])}),
    ]


def order(prefix, row: int) -> list[str]:
    """The spans of a row's valid tokens in order, each named once."""
    names = [prefix.names[i] for i in prefix.span_BS[row][prefix.valid_BS[row]].tolist()]
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


BASE = ["bos", "image:front", "before", "instruction", "after"]


def test_tokens_stand_behind_the_image_pixel_first():
    one = subject()
    model = one.wrap()
    prefix = model.prefix(model.collate(prompted(one), train=False))
    assert order(prefix, 0) == BASE
    assert order(prefix, 1) == ["bos", "image:front", "prompt:front", *BASE[2:]]
    assert order(prefix, 2) == ["bos", "image:front", "pixel:front", "prompt:front", *BASE[2:]]


def test_in_text_they_stand_behind_the_instruction_which_then_refers_to_them():
    one = subject()
    model = with_splice(one, "in_text")
    batch = model.collate(prompted(one), train=False)
    prefix = model.prefix(batch)
    assert order(prefix, 0) == BASE
    assert order(prefix, 2) == [*BASE[:4], "pixel:front", "prompt:front", "after"]
    said = [bytes(i for i in row if i < 256).decode() for row in batch.inputs["ids"].tolist()]
    assert [", refer to\nAction:" in text for text in said] == [False, True, True]


def test_an_unknown_splice_is_refused():
    one = subject()
    with pytest.raises(UserError, match="after_image"):
        PixelVLA(one.adapter, one.wrap().head, splice="after_images")


def test_each_camera_has_its_own_tokens():
    one = subject(cameras=["front", "wrist"])
    model = one.wrap()
    samples = prompted(one, "wrist")
    samples[1] = replace(samples[1], prompts={"front": (Point(0.1, 0.1),), "wrist": (Point(0.9, 0.9),)})
    prefix = model.prefix(model.collate(samples, train=False))
    images = ["bos", "image:front", "prompt:front", "image:wrist", "prompt:wrist"]
    assert order(prefix, 1) == [*images, "before", "instruction", "after"]
    assert order(prefix, 2)[:5] == ["bos", "image:front", "image:wrist", "pixel:wrist", "prompt:wrist"]


def test_prompts_in_a_camera_that_nothing_reads_are_refused():
    one = subject()
    sample = replace(one.samples[0], prompts={"fronts": (Point(0.5, 0.5),)})
    with pytest.raises(UserError, match="Did you mean 'front'"):
        one.wrap().collate([sample], train=False)


POINT = Point(0.5, 0.5)
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": {"front": POINT}}, r"even for a single one"),
        ({"prompts": {"front": ((0.5, 0.5),)}}, r"has the prompts \(\(0.5, 0.5\),\) in camera 'front'"),
        ({"prompts": (POINT,)}, "prompts of type tuple"),
        ({"instruction": None}, "the instruction None"),
        ({"images": {"front": PICTURE.tolist()}}, "camera 'front' that is of type list"),
        ({"images": {"front": PICTURE / 255}}, "is float64"),
        ({"images": {"front": PICTURE[..., 0]}}, r"is uint8\[8, 8\]"),
        ({"images": PICTURE}, "images of type ndarray"),
    ],
)
def test_samples_of_other_types_are_refused_with_words(change, said):
    one = subject()
    with pytest.raises(UserError, match=said):
        one.wrap().collate([one.samples[0], replace(one.samples[0], **change)], train=False)


@pytest.mark.parametrize("what", ["sample", "array", "nothing"])
def test_what_is_no_list_of_samples_is_refused_with_words(what):
    one = subject()
    samples = {"sample": one.samples[0], "array": [PICTURE], "nothing": []}[what]
    with pytest.raises(UserError, match=r"in a list, found|There are no samples"):
        one.wrap().collate(samples, train=False)


@pytest.mark.parametrize(
    "masks", [REGION, REGION[None].astype(np.uint8), REGION[None].tolist(), np.zeros((1, 0, 0), bool)]
)
def test_masks_of_another_shape_or_type_are_refused(masks):
    one = subject()
    with pytest.raises(UserError, match=r"bool \[masks, height, width\]"):
        one.wrap().collate([replace(one.samples[0], masks={"front": masks})], train=False)


@pytest.mark.parametrize("causal", [True, False])
def test_without_prompts_it_is_the_base_bit_for_bit(causal):
    one = subject(causal=causal)
    wrapped = one.wrap()
    wrapped.head = NativeHead(NativeHeadConfig(), one.spec)
    bare = PixelVLA(one.adapter, wrapped.head)
    found, wanted = (model.predict(model.collate(one.samples, train=False)) for model in (wrapped, bare))
    assert torch.equal(found, wanted)
    assert torch.equal(wanted, one.adapter.native_actions(one.prefix(), one.batch()))


@pytest.mark.parametrize("causal", [True, False])
def test_a_sample_without_prompts_does_not_notice_its_neighbours(causal):
    """Its inserted tokens are all invalid: equal up to the rounding of a longer softmax."""
    one = subject(causal=causal)
    model = one.wrap()
    model.head = NativeHead(NativeHeadConfig(), one.spec)
    together = model.predict(model.collate(prompted(one), train=False))[0]
    assert (together - one.adapter.native_actions(one.prefix(), one.batch())[0]).abs().max() < 1e-6


def test_prompts_and_masks_change_what_it_predicts():
    one = subject()
    model = one.wrap()
    predicted = [model.predict(model.collate(samples, train=False)) for samples in (one.samples, prompted(one))]
    gap_B = (predicted[0] - predicted[1]).abs().amax((1, 2))
    assert gap_B[0] < 1e-6
    assert (gap_B[1:] > 1e-5).all()


def test_the_overlay_paints_and_inserts_nothing():
    one = subject()
    overlay = OverlayPromptEncoder(OverlayConfig(), one.spec)
    model = PixelVLA(one.adapter, one.wrap().head, prompt_encoder=overlay)
    plain, marked = (model.collate(samples, train=False) for samples in (one.samples, prompted(one)))
    changed_B = (plain.inputs["pixels.front"] != marked.inputs["pixels.front"]).flatten(1).any(1)
    assert changed_B.tolist() == [False, True, True]
    prefix = model.prefix(marked)
    assert [order(prefix, row) for row in range(3)] == [BASE] * 3
    assert torch.equal(marked.inputs["ids"], plain.inputs["ids"])


def test_a_prompt_encoder_that_does_not_paint_needs_no_paint():
    """What docs/plugins.md asks of one, and no more."""

    class Bare(torch.nn.Module):
        paints = False

        def forward(self, prompts):
            return torch.ones(*prompts.valid_BK.shape, one.spec.width), prompts.valid_BK

    one = subject()
    model = PixelVLA(one.adapter, one.wrap().head, prompt_encoder=Bare())
    prefix = model.prefix(model.collate(prompted(one), train=False))
    assert [any(name.startswith("prompt") for name in order(prefix, row)) for row in range(3)] == [False, True, True]


def test_the_overlay_in_text_refers_to_nothing():
    one = subject()
    overlay = OverlayPromptEncoder(OverlayConfig(), one.spec)
    model = PixelVLA(one.adapter, one.wrap().head, prompt_encoder=overlay, splice="in_text")
    marked = model.collate(prompted(one), train=False)
    assert torch.equal(marked.inputs["ids"], model.collate(one.samples, train=False).inputs["ids"])


def test_features_made_before_and_a_past_give_the_same_loss():
    one = subject()
    model = one.wrap()
    samples = [with_actions(s, one.spec, i) for i, s in enumerate(prompted(one))]
    batch = model.collate(samples, train=True)
    assert batch.actions_BHA.shape == (3, HORIZON, one.spec.action.dim)
    loss = model(batch)
    assert torch.equal(model(batch, features=model.features(batch)), loss)
    assert (model(batch, past=model.prefill(batch)) - loss).abs() < 1e-5


def test_a_batch_moves_as_one():
    one = subject()
    model = one.wrap()
    batch = model.collate(prompted(one), train=False).to("meta")
    assert batch.prompts["front"].coords_BK2.is_meta
    assert batch.masks["front"].masks_BMHW.is_meta
    assert all(value.is_meta for value in batch.inputs.values())


class Doubling:
    """Stands for a contract: physical units are twice the model's."""

    def normalize(self, actions):
        return actions / 2

    def unnormalize(self, actions):
        return actions * 2


def test_actions_pass_the_contract_both_ways():
    one = subject()
    model = one.wrap()
    with pytest.raises(ContractError, match="no action contract"):
        model.act(one.samples)
    model.contract = Doubling()
    samples = [with_actions(s, one.spec, i) for i, s in enumerate(one.samples)]
    batch = model.collate(samples, train=True)
    assert torch.equal(batch.actions_BHA[1] * 2, torch.from_numpy(samples[1].actions))
    acted = model.act(one.samples)
    assert acted.dtype == np.float32
    assert acted == pytest.approx(model.predict(batch).numpy() * 2, abs=1e-6)


def test_the_base_has_one_name_for_every_weight():
    model = subject().wrap()
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len({id(p) for p in model.parameters()})
    assert {name.split(".")[0] for name in names} == {"base", "pixel_encoder", "prompt_encoder", "head"}


def test_frozen_parts_of_the_base_have_no_dropout_in_training_mode():
    one = subject(dropout=0.5)
    model = one.wrap()
    model.base.requires_grad_(False)
    model.train()
    assert model.head.training
    assert not any(module.training for module in model.base.modules())
    batch = model.collate(prompted(one), train=False)
    assert torch.equal(model.predict(batch), model.predict(batch))
    model.base.requires_grad_(True)
    model.train()
    assert not torch.equal(model.predict(batch), model.predict(batch))


RECIPE = Recipe(
    backbone=Backbone("third_party", {"width": 32, "heads": 2}),
    pixel_encoder=Part("multiscale", {"levels": [0.5, 1.0]}),
    prompt_encoder=Part("sam", {"width": 64}),
    head=Part("l1", {"blocks": 1}),
    splice="in_text",
    lora=Lora(rank=2),
    action=Action(horizon=3),
)


def test_a_recipe_becomes_a_model_the_same_each_time():
    first, second, other = assemble(RECIPE), assemble(RECIPE), assemble(RECIPE, seed=1)
    assert first.splice == "in_text"
    assert first.head.horizon == 3
    assert first.pixel_encoder.levels == (0.5, 1.0)
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.queries_HD, other.head.queries_HD)
    assert first.head.queries_HD.requires_grad
    assert any(".lora_A." in name for name in first.state_dict())
    # Our own modules come after LoRA, so no adapter ever lies on them.
    assert not any(".lora_" in name for name in first.state_dict() if not name.startswith("base."))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"backbone": None}, RecipeError, "names no backbone"),
        ({"head": None}, RecipeError, "names no head"),
        ({"head": Part("nativ")}, PluginError, "Did you mean 'native'"),
        ({"head": Part("l1", {"block": 1})}, RecipeError, "Did you mean"),
        ({"lora": Lora(rank=2, groups=["expert"])}, RecipeError, "expert"),
    ],
)
def test_recipes_that_describe_no_model_are_refused_with_words(change, error, said):
    with pytest.raises(error, match=re.escape(said)):
        assemble(replace(RECIPE, **change))


def test_a_mask_prompt_and_a_pixel_mask_are_two_tokens():
    one = subject()
    model = one.wrap()
    sample = replace(one.samples[0], prompts={"front": (Mask(REGION),)}, masks={"front": REGION[None]})
    prefix = model.prefix(model.collate([sample], train=False))
    assert order(prefix, 0)[1:4] == ["image:front", "pixel:front", "prompt:front"]
    assert not torch.allclose(*(prefix.read(f"{kind}:front", prefix.tokens_BSD) for kind in ("pixel", "prompt")))
