"""pi0 behind the seam: the contract, prompts and cameras, one vision pass, one encoding of the prefix."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from pixelvla_pi0.adapter import build
from pixelvla_pi0.config import Pi0Options
from pixelvla_pi0.plugin import pixelvla_backbones
from pixelvla_pi0.processing import geometry, pixels
from tiny_pi0 import chunk, wrap

from pixelvla_core.errors import UserError
from pixelvla_core.model.action_head import L1ActionHead
from pixelvla_core.model.config import ActionHeadConfig
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.testing import check_backbone

CAMERAS = ("front", "wrist")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pi0") / "base"
    tiny_pi0.write(path, cameras=CAMERAS)
    return path


@pytest.fixture
def model(folder) -> PixelVLA:
    """Two cameras and pi0's own head."""
    return wrap(build(Pi0Options(cameras=list(CAMERAS)), weights=str(folder)))


@pytest.mark.parametrize("cameras", [["front"], list(CAMERAS)], ids="+".join)
def test_the_whole_contract_of_the_seam_holds(folder, cameras):
    (component,) = pixelvla_backbones()
    options = {"cameras": cameras}
    check_backbone(component, weights=str(folder), options=options).raise_for_failures()


def test_the_contract_holds_in_bfloat16_as_well(folder):
    check_backbone(build(Pi0Options(), weights=str(folder), dtype="bfloat16")).raise_for_failures()


def test_moving_a_point_changes_the_action(model):
    samples = tiny_pi0.samples(1, CAMERAS)
    chunks = [chunk(model, [replace(samples[0], prompts={"front": (Point(x, 0.5),)})]) for x in (0.2, 0.21, 0.8)]
    assert not torch.equal(chunks[0], chunks[1])
    assert (chunks[0] - chunks[2]).abs().max() > (chunks[0] - chunks[1]).abs().max()


@pytest.mark.parametrize("head", ["native", "l1"])
def test_every_kind_of_prompt_reaches_the_action_of_either_head(model, head):
    if head == "l1":
        torch.manual_seed(2)
        l1 = L1ActionHead(ActionHeadConfig(width=16), model.backbone.spec, horizon=5, dim=7)
        model = PixelVLA(model.backbone, l1, pixel_encoder=model.pixel_encoder, prompt_encoder=model.prompt_encoder)
        model.eval()
    sample = tiny_pi0.samples(1, CAMERAS)[0]
    region = np.zeros((48, 64), bool)
    region[10:30, 20:40] = True
    kinds = (Point(0.3, 0.4), Line(((0.1, 0.2), (0.5, 0.5))), Box(0.2, 0.2, 0.6, 0.7), Mask(region))
    marked = [sample, *(replace(sample, prompts={"front": (kind,)}) for kind in kinds)]
    marked.append(replace(sample, masks={"front": region[None]}))
    found = [chunk(model, [each]) for each in marked]
    assert found[0].shape == (1, 5 if head == "l1" else tiny_pi0.HORIZON, 7)
    for i, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[i + 1 :])


def test_the_tokens_of_a_prompt_stand_with_the_image_of_its_camera(model):
    region = np.zeros((1, 48, 64), bool)
    region[0, 10:30, 20:40] = True
    sample = tiny_pi0.samples(1, CAMERAS)[0]
    for camera in CAMERAS:
        marked = replace(sample, prompts={camera: (Point(0.3, 0.4),)}, masks={camera: region})
        prefix = model.prefix(model.collate([marked], train=False))
        order = [prefix.names[i] for i in prefix.span_BS[0].unique_consecutive()]
        at = order.index(f"image:{camera}")
        assert order[at + 1 : at + 3] == [f"pixel:{camera}", f"prompt:{camera}"]
        (other,) = set(CAMERAS) - {camera}
        assert not any(name.endswith(f":{other}") for name in order if not name.startswith("image"))


def test_a_prompt_on_one_camera_says_nothing_about_the_other(model):
    """Its tokens hold the features and places of its own camera alone, whatever the other one sees."""
    region = np.zeros((1, 48, 64), bool)
    region[0, 10:30, 20:40] = True
    one, other = tiny_pi0.samples(2, CAMERAS)
    marked = [
        replace(one, images=images, prompts={"front": (Point(0.3, 0.4),)}, masks={"front": region})
        for images in (one.images, {**one.images, "wrist": other.images["wrist"]}, {**other.images})
    ]
    prefixes = [model.prefix(model.collate([sample], train=False)) for sample in marked]
    spans = [{name: p.read(name, p.tokens_BSD) for name in ("pixel:front", "prompt:front")} for p in prefixes]
    for name in spans[0]:
        assert torch.equal(spans[0][name], spans[1][name])
    assert not torch.equal(spans[0]["pixel:front"], spans[2]["pixel:front"])
    swapped = replace(one, prompts={"wrist": (Point(0.3, 0.4),)}, masks={"wrist": region})
    assert not torch.allclose(chunk(model, [marked[0]]), chunk(model, [swapped]), atol=1e-4)


def test_one_vision_pass_for_each_camera_levels_included(model):
    calls: Counter[str] = Counter()
    tower = model.backbone.vlm.paligemma.model.vision_tower
    tower.register_forward_hook(lambda *_: calls.update(["tower"]))
    for number, block in enumerate(model.backbone.blocks):
        block.register_forward_hook(lambda *_, number=number: calls.update([f"block {number}"]))
    region = np.ones((1, 48, 64), bool)
    sample = replace(tiny_pi0.samples(1, CAMERAS)[0], masks={"front": region, "wrist": region})
    for run in (chunk, lambda m, s: m.loss(m.collate(s, train=True))):
        calls.clear()
        run(model, [sample])
        assert set(calls.values()) == {len(CAMERAS)}
        assert len(calls) == 1 + tiny_pi0.SIZES.vision_depth


def test_the_prefix_is_encoded_once_per_chunk_and_not_once_per_denoising_step(model, monkeypatch):
    calls: Counter[str] = Counter()
    vlm = model.backbone.vlm
    for name, part in (("prefix", vlm.paligemma.model.language_model), ("expert", vlm.gemma_expert.model)):
        whole = part.forward

        def counted(*args, name=name, whole=whole, **keywords):
            calls.update([name])
            return whole(*args, **keywords)

        monkeypatch.setattr(part, "forward", counted)
    sample = replace(tiny_pi0.samples(1, CAMERAS)[0], prompts={"front": (Point(0.3, 0.4),)})
    chunk(model, [sample])
    assert calls == {"prefix": 1, "expert": tiny_pi0.CONFIG["num_inference_steps"]}
    batch = model.collate([sample], train=False)
    prefix, noise = model.prefix(batch), torch.randn(1, tiny_pi0.HORIZON, 32)
    calls.clear()
    model.backbone.flow_sample(prefix, batch, noise, 7)
    assert calls == {"prefix": 1, "expert": 7}


def test_nothing_is_left_behind_in_lerobots_objects(model):
    """Methods are given back and hooks are taken off, also when something raises in between."""
    before = dict(vars(model.backbone.core)), dict(vars(model.backbone.vlm))
    chunk(model, tiny_pi0.samples(1, CAMERAS))
    batch = model.collate(tiny_pi0.samples(1, CAMERAS), train=True)
    with pytest.raises(RuntimeError):
        model.backbone.native_loss(model.prefix(batch), replace(batch, inputs={"state": torch.zeros(1, 5, 5)}))
    assert dict(vars(model.backbone.core)) == before[0]
    assert dict(vars(model.backbone.vlm)) == before[1]
    assert not any(block._forward_hooks for block in model.backbone.blocks)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([28, 56]))
def test_the_map_is_where_lerobot_puts_the_image(height, width, size):
    """A white image letterboxed by LeRobot: its edges are those of the map, to the pixel."""
    image = np.full((height, width, 3), 255, np.uint8)
    if min(height, width) * size < max(height, width):
        with pytest.raises(UserError, match="Crop it first"):
            geometry(image, size)
        return
    rows, columns = torch.nonzero(pixels(image, size)[0] > 0, as_tuple=True)
    affine = geometry(image, size)
    (x0, y0), (x1, y1) = affine(0, 0), affine(1, 1)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [float(edge) for edge in found] == pytest.approx([edge * size for edge in (x0, y0, x1, y1)], abs=1e-4)


@pytest.mark.parametrize("shape", [(48, 64), (56, 56), (200, 31), (7, 7)])
def test_the_pixels_are_those_that_lerobot_prepares(folder, shape):
    stock = tiny_pi0.stock(folder)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    batch = {f"observation.images.{camera}": torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for camera in CAMERAS}
    (wanted, *_), _ = stock._preprocess_images(batch)
    assert torch.equal(pixels(image, tiny_pi0.SIZE)[None], wanted)


def test_the_text_has_the_ids_of_lerobots_own_steps_and_knows_its_instruction(model):
    samples = tiny_pi0.samples(3, CAMERAS)
    inputs, theirs = model.collate(samples, train=False).inputs, tiny_pi0.lerobot_batch(samples)
    assert torch.equal(inputs["tokens"], theirs["observation.language.tokens"])
    assert torch.equal(inputs["token_mask"], theirs["observation.language.attention_mask"])
    words = [len(tiny_pi0.words_in(sample.instruction)) for sample in samples]
    assert (inputs["token_span"] == 1).sum(1).tolist() == words
    assert (inputs["token_span"] == 0).sum(1).tolist() == [1, 1, 1]


def test_in_text_puts_the_tokens_behind_the_instruction(model):
    model.splice = "in_text"
    sample = replace(tiny_pi0.samples(1, CAMERAS)[0], prompts={"front": (Point(0.3, 0.4),)})
    prefix = model.prefix(model.collate([sample], train=False))
    order = [prefix.names[i] for i in prefix.span_BS[0].unique_consecutive()]
    assert order == ["image:front", "image:wrist", "bos", "instruction", "prompt:front", "text"]


def test_fixed_noise_makes_a_chunk_depend_on_its_sample_alone(folder):
    options = Pi0Options(cameras=list(CAMERAS), fixed_noise=True)
    model, samples = wrap(build(options, weights=str(folder))), tiny_pi0.samples(3, CAMERAS)
    found = chunk(model, samples, seed=1)
    alone = torch.cat([chunk(model, [sample], seed=2) for sample in reversed(samples)]).flip(0)
    assert torch.allclose(found, alone, atol=1e-5)
    other = chunk(model, [replace(samples[0], key="another")])
    assert not torch.allclose(other, found[:1], atol=1e-2)
