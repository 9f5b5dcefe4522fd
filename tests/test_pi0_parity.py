"""Without prompts, a wrapped pi0 is LeRobot's ``PI0Policy`` to the last bit: training loss and sampled chunk."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from pixelvla_pi0.adapter import build
from pixelvla_pi0.config import Pi0Options
from tiny_pi0 import chunk, loss, wrap

from pixelvla_core.model import lora
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.prompts import Point

CAMERAS = {"one camera": ("front",), "two cameras": ("front", "wrist")}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CAMERAS.values(), ids=list(CAMERAS))
def cameras(request) -> tuple[str, ...]:
    return request.param


@pytest.fixture(scope="module")
def folder(cameras, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pi0") / "base"
    tiny_pi0.write(path, cameras=cameras)
    return path


@pytest.fixture(scope="module")
def stock(folder):
    return tiny_pi0.stock(folder)


@pytest.fixture
def model(folder, cameras) -> PixelVLA:
    return wrap(build(Pi0Options(cameras=list(cameras)), weights=str(folder)))


def expect_equal(model: PixelVLA, stock, samples) -> None:
    """Loss and chunk are those of LeRobot, bit for bit."""
    batch = tiny_pi0.lerobot_batch(samples)
    torch.manual_seed(5)
    wanted, _ = stock.forward(batch)
    assert torch.equal(loss(model, samples), wanted)
    torch.manual_seed(5)
    wanted = stock.predict_action_chunk(batch)
    assert torch.equal(chunk(model, samples), wanted)


def test_the_stock_policy_has_the_weights_of_the_folder(stock, model):
    """LeRobot's from_pretrained goes on with random weights if loading fails; then nothing here would mean anything."""
    mine, theirs = model.base.state_dict(), stock.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_loss_and_chunk_are_lerobots(model, stock, cameras):
    expect_equal(model, stock, tiny_pi0.samples(cameras=cameras))


def test_images_that_lerobot_need_not_resize_are_equal_too(model, stock, cameras):
    rng = np.random.default_rng(3)
    square = {c: rng.integers(0, 256, (tiny_pi0.SIZE, tiny_pi0.SIZE, 3), dtype=np.uint8) for c in cameras}
    expect_equal(model, stock, [replace(s, images=square) for s in tiny_pi0.samples(cameras=cameras)])


def test_the_gradient_of_the_base_is_lerobots(model, stock, cameras):
    samples = tiny_pi0.samples(cameras=cameras)
    for parameter in model.base.parameters():
        parameter.requires_grad_(True)
    loss(model, samples).backward()
    torch.manual_seed(5)
    stock.forward(tiny_pi0.lerobot_batch(samples))[0].backward()
    theirs = {name: p.grad for name, p in stock.named_parameters()}
    for name, parameter in model.base.named_parameters():
        assert (parameter.grad is None) == (theirs[name] is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, theirs[name]), name
    stock.zero_grad()


@pytest.mark.parametrize("groups", [["llm"], ["llm", "expert"]], ids="+".join)
def test_the_same_after_lora_is_injected(model, stock, cameras, groups):
    spec = model.backbone.spec
    targets = lora.inject(model.base, [spec.groups[g] for g in groups], rank=4, alpha=8)
    assert len(targets) == 7 * tiny_pi0.SIZES.depth * len(groups)
    # torch multiplies by a weight that learns in another order than by a frozen one, so both bases are frozen.
    stock.requires_grad_(False)
    try:
        expect_equal(model, stock, tiny_pi0.samples(cameras=cameras))
    finally:
        stock.requires_grad_(True)


def test_the_same_after_saving_and_loading(model, stock, cameras, tmp_path):
    lora.inject(model.base, [model.backbone.spec.groups["llm"]], rank=4, alpha=8)
    model.backbone.save_base(tmp_path / "saved")
    again = wrap(build(Pi0Options(cameras=list(cameras)), weights=str(tmp_path / "saved")))
    samples = tiny_pi0.samples(cameras=cameras)
    expect_equal(again, stock, samples)
    expect_equal(again, tiny_pi0.stock(tmp_path / "saved"), samples)


def test_a_prompt_makes_a_difference_so_the_equality_says_something(model, stock, cameras):
    samples = tiny_pi0.samples(cameras=cameras)
    marked = [replace(s, prompts={"front": (Point(0.3, 0.4),)}) for s in samples]
    batch = tiny_pi0.lerobot_batch(samples)
    torch.manual_seed(5)
    wanted = stock.predict_action_chunk(batch)
    assert not torch.allclose(chunk(model, marked), wanted, atol=1e-4)


def test_steps_behind_the_end_of_an_episode_do_not_count(model, cameras):
    samples = tiny_pi0.samples(cameras=cameras)
    short = [replace(s, action_valid=np.array([True, True, False, False])) for s in samples]
    spoilt = [replace(s, actions=np.where(s.action_valid[:, None], s.actions, 7.0)) for s in short]
    batch = model.collate(samples, train=True)
    torch.manual_seed(5)
    noise = model.backbone.core.sample_noise((3, 4, 32), "cpu")
    time = model.backbone.core.sample_time(3, "cpu")
    errors = model.backbone.flow_loss(model.prefix(batch), batch, noise, time)
    assert torch.allclose(loss(model, short), errors[:, :2, : tiny_pi0.DIM].mean())
    assert not torch.equal(loss(model, short), loss(model, samples))
    assert torch.isfinite(loss(model, spoilt))


def test_bfloat16_keeps_the_float32_islands_that_lerobot_keeps(folder, cameras, stock):
    adapter = build(Pi0Options(cameras=list(cameras)), weights=str(folder), dtype="bfloat16")
    with tiny_pi0.resized(tiny_pi0.SIZES):
        config = replace(stock.config, dtype="bfloat16", device="cpu")
        theirs = type(stock)(config).state_dict()
    kinds = {name: value.dtype for name, value in adapter.module.state_dict().items()}
    assert kinds == {name: value.dtype for name, value in theirs.items()}
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}
    buffers = {name: value.dtype for name, value in adapter.module.named_buffers()}
    assert torch.bfloat16 in buffers.values()  # LeRobot casts the rotary frequencies as well
    model = wrap(adapter)
    samples = tiny_pi0.samples(cameras=cameras)
    assert torch.isfinite(loss(model, samples))
    assert torch.isfinite(chunk(model, samples)).all()
