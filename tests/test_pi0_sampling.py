"""pi0's fast sampler: LeRobot's chunk within rounding, from the same modules, with the prefix encoded once.

The bound is 1e-5 in float32; actions are in units of their standard deviation, and the tiny model's go to about 3.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from pixelvla_pi0.adapter import Pi0Adapter, build
from pixelvla_pi0.config import Pi0Options
from pixelvla_pi0.sampling import attend, faster, without_padding
from pixelvla_pi0.splice import spliced
from tiny_pi0 import chunk, wrap

from pixelvla_core.errors import UserError
from pixelvla_core.model import lora
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.prompts import Box, Point
from pixelvla_core.seam.prefix import Prefix
from pixelvla_core.testing import check_backbone

CAMERAS = ("front", "wrist")
CLOSE = {"atol": 1e-5, "rtol": 0.0}


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


def built(folder: Path, sampler: str = "fast", dtype: str = "float32", **changes) -> PixelVLA:
    options = Pi0Options(cameras=list(CAMERAS), sampler=sampler, policy=changes)
    return wrap(build(options, weights=str(folder), dtype=dtype))


@pytest.fixture
def model(folder) -> PixelVLA:
    return built(folder)


def both(model: PixelVLA, samples) -> tuple[torch.Tensor, torch.Tensor]:
    """The chunk of the fast sampler and LeRobot's, of one model from the same noise."""
    fast = chunk(model, samples)
    model.backbone.sampler = "lerobot"
    try:
        return fast, chunk(model, samples)
    finally:
        model.backbone.sampler = "fast"


def expect_close(model: PixelVLA, samples) -> None:
    fast, stock = both(model, samples)
    torch.testing.assert_close(fast, stock, **CLOSE)
    assert stock.abs().max() > 0.5


def of_lerobot(folder: Path, samples) -> torch.Tensor:
    """The chunk of LeRobot's own policy, loaded by LeRobot."""
    policy, batch = tiny_pi0.stock(folder), tiny_pi0.lerobot_batch(samples)
    torch.manual_seed(5)
    return policy.predict_action_chunk(batch)


def marked(samples):
    """The first sample has a point and two masks on one camera, the second a box on the other, the third nothing."""
    regions = np.zeros((2, 48, 64), bool)
    regions[0, 10:30, 20:40] = regions[1, 5:9, 5:9] = True
    first = replace(samples[0], prompts={"front": (Point(0.3, 0.4),)}, masks={"front": regions})
    return [first, replace(samples[1], prompts={"wrist": (Box(0.1, 0.2, 0.5, 0.7),)}), *samples[2:]]


# --- the chunk is LeRobot's ---------------------------------------------------------------------------------------


def test_the_chunk_is_lerobots_within_rounding(folder, model):
    samples = tiny_pi0.samples(cameras=CAMERAS)
    expect_close(model, samples)
    wanted = of_lerobot(folder, samples)
    torch.testing.assert_close(chunk(model, samples), wanted, **CLOSE)


@pytest.mark.parametrize("count", [1, 3])
def test_with_prompts_on_some_of_the_samples(model, count):
    samples = tiny_pi0.samples(cameras=CAMERAS)
    prompted = marked(samples)[:count]
    expect_close(model, prompted)
    assert not torch.allclose(chunk(model, prompted), chunk(model, samples[:count]), atol=1e-4)


@pytest.mark.parametrize(("steps", "horizon"), [(1, 4), (2, 1), (7, 3), (10, 9)])
def test_for_other_numbers_of_steps_and_chunk_sizes(folder, steps, horizon):
    model = built(folder, chunk_size=horizon, n_action_steps=1, num_inference_steps=steps)
    samples = [replace(s, actions=None, action_valid=None) for s in tiny_pi0.samples(cameras=CAMERAS)]
    assert chunk(model, samples).shape == (3, horizon, tiny_pi0.DIM)
    expect_close(model, samples)


@pytest.mark.parametrize("groups", [["llm"], ["llm", "expert"], ["expert", "action_io", "vision"]], ids="+".join)
def test_after_lora_has_learned(model, groups):
    before = chunk(model, tiny_pi0.samples(cameras=CAMERAS))
    lora.inject(model.base, [model.backbone.spec.groups[group] for group in groups], rank=4, alpha=8)
    torch.manual_seed(3)
    for name, parameter in model.base.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    expect_close(model, marked(tiny_pi0.samples(cameras=CAMERAS)))
    assert not torch.allclose(chunk(model, tiny_pi0.samples(cameras=CAMERAS)), before, atol=1e-3)


def test_flow_from_given_noise(model):
    batch = model.collate(tiny_pi0.samples(cameras=CAMERAS), train=False)
    prefix, noise = model.prefix(batch), torch.randn(3, tiny_pi0.HORIZON, tiny_pi0.DIM)
    fast = model.backbone.flow_sample(prefix, batch, noise, 5)
    model.backbone.sampler = "lerobot"
    torch.testing.assert_close(fast, model.backbone.flow_sample(prefix, batch, noise, 5), **CLOSE)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), length=st.integers(1, 12), rows=st.integers(1, 3))
def test_whatever_is_valid_and_wherever_blocks_begin(model_alone, data, length, rows):
    """Random prefixes: padding anywhere, blocks that begin anywhere, in each row others; a valid token in each."""
    core = model_alone.backbone.core
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length)))
    valid = valid.view(rows, length)
    valid[torch.arange(rows), torch.tensor([data.draw(st.integers(0, length - 1)) for _ in range(rows)])] = True
    block = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length)))
    tokens = torch.randn(rows, length, model_alone.backbone.spec.width, generator=torch.Generator().manual_seed(length))
    span = torch.zeros(rows, length, dtype=torch.long)
    prefix = Prefix(tokens, valid, block.view(rows, length), span, ("all",))
    state, noise = torch.ones(rows, 32), torch.randn(rows, tiny_pi0.HORIZON, 32)
    chunks = []
    for way in (spliced, faster):
        with way(core, prefix):
            chunks.append(core.sample_actions(None, None, None, None, state, noise=noise, num_steps=2))
    torch.testing.assert_close(chunks[1], chunks[0], **CLOSE)


@pytest.fixture(scope="module")
def model_alone(folder) -> PixelVLA:
    return built(folder)


def test_bfloat16_is_as_near_to_float32_as_lerobots_own_chunk_is(folder, model):
    samples = marked(tiny_pi0.samples(cameras=CAMERAS))
    exact = chunk(model, samples)
    fast, stock = both(built(folder, dtype="bfloat16"), samples)
    assert (fast - stock).abs().max() < 0.03
    assert (fast - exact).abs().mean() < 1.5 * (stock - exact).abs().mean()


def test_real_time_chunking_goes_through_lerobots_own_code(model):
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    model.base.config.rtc_config = RTCConfig(enabled=True, execution_horizon=3)
    model.base.init_rtc_processor()
    batch = model.collate(tiny_pi0.samples(2, cameras=CAMERAS), train=False)
    prefix, core = model.prefix(batch), model.backbone.core
    given = {"noise": torch.randn(2, 4, 32), "inference_delay": 1, "prev_chunk_left_over": torch.randn(2, 3, 32)}
    chunks = []
    for way in (spliced, faster):
        with way(core, prefix):
            chunks.append(core.sample_actions(None, None, None, None, torch.ones(2, 32), **given))
    torch.testing.assert_close(chunks[1], chunks[0], **CLOSE)
    with spliced(core, prefix):
        free = core.sample_actions(None, None, None, None, torch.ones(2, 32), noise=given["noise"])
    assert not torch.allclose(free, chunks[0], atol=1e-3)


# --- what is not done ---------------------------------------------------------------------------------------------


def test_the_prefix_is_encoded_once_without_padding_and_its_last_mlp_is_left_out(model, monkeypatch):
    calls: Counter[str] = Counter()
    lengths = []
    vlm = model.backbone.vlm
    layers = vlm.paligemma.model.language_model.layers
    for name, part in (("prefix", vlm.paligemma.model.language_model), ("expert", vlm.gemma_expert.model)):
        whole = part.forward

        def counted(*args, name=name, whole=whole, **keywords):
            calls.update([name])
            lengths.append((name, keywords["inputs_embeds"].shape[1]))
            return whole(*args, **keywords)

        monkeypatch.setattr(part, "forward", counted)
    for number, layer in enumerate(layers):
        layer.mlp.up_proj.register_forward_hook(lambda *_, number=number: calls.update([f"mlp {number}"]))
    sample = tiny_pi0.samples(1, CAMERAS)[0]
    chunk(model, [sample])
    steps = tiny_pi0.CONFIG["num_inference_steps"]
    assert calls == {"prefix": 1, "expert": steps, "mlp 0": 1}
    words = 2 + len(tiny_pi0.words_in(sample.instruction))  # with <bos> and the newline
    assert lengths == [("prefix", 2 * 16 + words), *[("expert", 1 + tiny_pi0.HORIZON)] * steps]


def test_keys_and_values_are_read_where_they_lie(monkeypatch):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, v, **kw: seen.append((k, v)) or real(q, k, v, **kw),
    )
    query, key, value = torch.randn(2, 8, 5, 16), torch.randn(2, 1, 7, 16), torch.randn(2, 1, 7, 16)
    found, _ = attend(None, query, key, value, torch.zeros(2, 1, 5, 7), 0.25)
    ((keys, values),) = seen
    assert keys.shape == values.shape == (2, 8, 7, 16)
    assert (keys.data_ptr(), values.data_ptr()) == (key.data_ptr(), value.data_ptr())
    weights = torch.softmax(query @ key.transpose(2, 3) * 0.25, -1)
    torch.testing.assert_close(found, (weights @ value).transpose(1, 2))


def test_heads_in_groups_read_the_keys_of_their_group():
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    found, _ = attend(None, query, key, value, torch.zeros(2, 1, 5, 7), 1.0)
    keys, values = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    torch.testing.assert_close(found, (torch.softmax(query @ keys.transpose(2, 3), -1) @ values).transpose(1, 2))


def test_padding_is_taken_out_and_blocks_keep_their_places():
    valid = torch.tensor([[1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0]]).bool()
    block = torch.tensor([[1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1]]).bool()
    tokens = torch.arange(12.0).view(2, 6, 1)
    found = without_padding(Prefix(tokens, valid, block, torch.arange(6).expand(2, 6), tuple("abcdef")))
    assert found.tokens_BSD[..., 0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert found.valid_BS.tolist() == [[True, True, True], [True, False, True]]
    assert found.block_BS.tolist() == [[True, False, True], [True, True, False]]
    assert found.span_BS.tolist() == [[0, 2, 4]] * 2


# --- around it ----------------------------------------------------------------------------------------------------


def test_lerobots_own_sampler_is_the_default_and_stays_equal_to_the_last_bit(folder, model):
    samples = tiny_pi0.samples(cameras=CAMERAS)
    chunk(model, samples)  # leaves nothing behind
    model.backbone.sampler = Pi0Options().sampler
    wanted = of_lerobot(folder, samples)
    assert torch.equal(chunk(model, samples), wanted)


def test_nothing_is_left_behind_in_lerobots_objects(model):
    core, vlm = model.backbone.core, model.backbone.vlm
    language, expert = vlm.paligemma.model.language_model, vlm.gemma_expert.model
    parts = [core, vlm, language, expert, language.layers[-1].mlp]
    before = [dict(vars(part)) for part in parts]
    attention = language.config._attn_implementation, expert.config._attn_implementation
    chunk(model, tiny_pi0.samples(1, CAMERAS))
    batch = model.collate(tiny_pi0.samples(1, CAMERAS), train=False)
    with pytest.raises(RuntimeError):
        model.backbone.native_actions(model.prefix(batch), replace(batch, inputs={"state": torch.zeros(1, 5, 5)}))
    assert [dict(vars(part)) for part in parts] == before
    assert (language.config._attn_implementation, expert.config._attn_implementation) == attention


def test_the_whole_contract_of_the_seam_holds(folder):
    options = Pi0Options(cameras=list(CAMERAS), sampler="fast")
    check_backbone(build(options, weights=str(folder))).raise_for_failures()


def test_a_sampler_that_is_none(folder):
    with pytest.raises(ValueError, match="sampler is 'quick'; expected lerobot or fast"):
        Pi0Options(sampler="quick")
    with pytest.raises(UserError, match="no sampler 'quick'"):
        Pi0Adapter(tiny_pi0.stock(folder), tokenizer=None, sampler="quick")


def test_what_a_fork_lacks_for_it_is_listed_and_lerobots_sampler_needs_no_more(folder):
    policy = tiny_pi0.stock(folder)
    names = ("forward", "sample_noise", "sample_time", "embed_prefix", "sample_actions", "denoise_step")
    core = SimpleNamespace(**{name: getattr(policy.model, name) for name in names})
    core.paligemma_with_expert = policy.model.paligemma_with_expert
    fork = SimpleNamespace(
        model=core, config=policy.config, prepare_state=policy.prepare_state, prepare_action=policy.prepare_action
    )
    with pytest.raises(UserError, match=r"it lacks model\.embed_suffix, model\.action_out_proj\."):
        Pi0Adapter(fork, tokenizer=None, sampler="fast")
    Pi0Adapter(fork, tokenizer=build(Pi0Options(), weights=str(folder)).text.tokenizer)
