"""pi0 for the benchmarks: LeRobot's policy as it is and with pixelvla around it, and the calls that are compared.

`mini` is pi0-mini as it ships; `mid` is LeRobot's classes with random weights, 46 million parameters: a language model
of 8 layers 512 wide, an expert 256 wide, a vision tower of 8 layers 384 wide that reads 256 patches of 224 px, chunks
of 50 steps, 10 denoising steps. Both are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelvla_pi0.adapter import Pi0Adapter

    from pixelvla_core.api import Batch, Sample
    from pixelvla_core.model.pixelvla import PixelVLA

SIZES = ("mini", "mid")
MID = {
    "width": 512,
    "mlp": 1536,
    "depth": 8,
    "head_width": 64,
    "expert_width": 256,
    "expert_mlp": 768,
    "vision_width": 384,
    "vision_depth": 8,
    "vision_heads": 6,
    "vision_mlp": 1536,
}
INSTRUCTION, STATE, DIM, BATCH = "pick up the red cube", 8, 7, 2
CLOSE = 1e-4
"""Largest difference of an action, in units of its standard deviation, that is still the same chunk in float32."""
Call = Callable[[], Any]


def base(size: str, quick: bool = False) -> Pi0Adapter:
    """LeRobot's `PI0Policy` behind the seam; `adapter.module` is the policy itself.

    Args:
        quick: In place of `mid` one that is built in a moment.
    """
    from pixelvla_pi0.adapter import Pi0Adapter, build
    from pixelvla_pi0.config import Pi0Options
    from pixelvla_pi0.sizes import Sizes
    from pixelvla_pi0.start import word_tokenizer, words_of
    from pixelvla_pi0.weights import random
    from pixelvla_pi0_mini.plugin import FOLDER

    if size == "mini":
        return build(Pi0Options(), weights=str(FOLDER))
    policy = random(_config(56 if quick else 224), Sizes() if quick else Sizes(**MID)).eval()
    return Pi0Adapter(policy, tokenizer=word_tokenizer(words_of([INSTRUCTION])))


def _config(side: int) -> Any:
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.pi0.configuration_pi0 import PI0Config

    return PI0Config(
        device="cpu",
        image_resolution=(side, side),
        input_features={
            "observation.images.front": PolicyFeature(type=FeatureType.VISUAL, shape=(3, side, side)),
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(STATE,)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(DIM,))},
    )


def wrapped(adapter: Pi0Adapter) -> PixelVLA:
    """The base with the paper's encoders and its own head around it, in eval mode."""
    from pixelvla_core.model.config import NativeHeadConfig, PixelEncoderConfig, PromptEncoderConfig
    from pixelvla_core.model.native_head import NativeHead
    from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.model.prompt_encoder import VisualPromptEncoder

    return PixelVLA(
        adapter,
        NativeHead(NativeHeadConfig(), adapter.spec, dim=DIM),
        pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(), adapter.spec),
        prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(), adapter.spec),
    ).eval()


def sample(adapter: Pi0Adapter, *, marked: bool = False) -> Sample:
    """A random picture that needs no letterbox, a state and a chunk; with a mask and a point if it is marked."""
    import numpy as np

    from pixelvla_core.api import Point, Sample

    rng, side = np.random.default_rng(0), adapter.spec.image_size
    plain = Sample(
        images={"front": rng.integers(0, 256, (side, side, 3), dtype=np.uint8)},
        instruction=INSTRUCTION,
        state=rng.normal(size=STATE).astype(np.float32),
        actions=rng.uniform(-1, 1, (adapter.spec.action.horizon, DIM)).astype(np.float32),
        key="bench",
    )
    if not marked:
        return plain
    mask_HW = np.zeros((side, side), bool)
    mask_HW[side // 3 : side // 2, side // 3 : side // 2] = True
    return replace(plain, prompts={"front": (Point(0.4, 0.4),)}, masks={"front": mask_HW[None]})


def for_lerobot(batch: Batch, samples: Iterable[Sample]) -> dict[str, Any]:
    """A batch as LeRobot's own processors hand it to a policy; text and state are those of our batch."""
    import torch

    images = [torch.from_numpy(one.images["front"]).permute(2, 0, 1).float() / 255 for one in samples]
    found = {
        "observation.images.front": torch.stack(images),
        "observation.state": batch.inputs["state"],
        "observation.language.tokens": batch.inputs["tokens"],
        "observation.language.attention_mask": batch.inputs["token_mask"],
    }
    return found if batch.actions_BHA is None else {**found, "action": batch.actions_BHA}


def chunks(adapter: Pi0Adapter) -> dict[str, Call]:
    """Way -> a call that samples one chunk from inputs at hand; each was tried and is what it is compared as."""
    model, quick = wrapped(adapter), wrapped(_with_fast_sampler(adapter))
    one = sample(adapter)
    plain, marked = (model.collate([each], train=False) for each in (one, sample(adapter, marked=True)))
    calls = {
        "lerobot": partial(adapter.module.predict_action_chunk, for_lerobot(plain, [one])),
        "plain": partial(model.predict, plain),
        "prompted": partial(model.predict, marked),
        "fast": partial(quick.predict, plain),
    }
    _check({name: _seeded(call) for name, call in calls.items()})
    return calls


def _with_fast_sampler(adapter: Pi0Adapter) -> Pi0Adapter:
    other = copy(adapter)
    other.sampler = "fast"
    return other


def _seeded(call: Call) -> Any:
    import torch

    torch.manual_seed(0)
    return call()


def _check(found: dict[str, Any]) -> None:
    """What is compared is the same chunk; a prompt makes another."""
    import torch

    assert torch.equal(found["plain"], found["lerobot"]), "without prompts the chunk is not LeRobot's"
    assert not torch.equal(found["prompted"], found["lerobot"]), "the prompt was not read"
    off = (found["fast"] - found["lerobot"]).abs().max().item()
    assert off < CLOSE, f"the fast sampler's chunk is off by {off}"


def steps(adapter: Pi0Adapter, ways: Iterable[str]) -> dict[str, Call]:
    """Way -> a call that makes one training step of `BATCH` samples; LoRA on the language model learns in each.

    `lerobot` alone builds nothing of pixelvla's model.
    """
    from pixelvla_core.model import freeze, lora

    lora.inject(adapter.module, [adapter.spec.groups["llm"]], rank=32, alpha=16)
    if set(ways) == {"lerobot"}:
        adapter.module.train()
        return {"lerobot": _lerobot_step(adapter)}
    model = wrapped(adapter)
    freeze.apply(model, ["lora"])
    model.train()
    ours = {"plain": False, "prompted": True}
    calls = {way: _our_step(model, sample(adapter, marked=ours[way])) for way in ways if way in ours}
    return {"lerobot": _lerobot_step(adapter), **calls} if "lerobot" in ways else calls


def _lerobot_step(adapter: Pi0Adapter) -> Call:
    """LeRobot's `PI0Policy.forward`, its gradient, and a step of AdamW."""
    from pixelvla_core.model.collate import collate_actions

    policy, samples = adapter.module, [sample(adapter)] * BATCH
    actions_BHA, _ = collate_actions([one.actions for one in samples], [None] * BATCH)
    batch = for_lerobot(replace(adapter.collate(samples, train=True), actions_BHA=actions_BHA), samples)
    return partial(_learn, lambda: policy(batch)[0], _optimizer(policy))


def _our_step(model: PixelVLA, one: Sample) -> Call:
    batch = model.collate([one] * BATCH, train=True)
    return partial(_learn, lambda: model(batch), _optimizer(model))


def _optimizer(model: Any) -> Any:
    import torch

    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)


def _learn(loss: Call, optimizer: Any) -> None:
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()
