"""What pixelvla costs around LeRobot's pi0: a sampled chunk and a training step, against LeRobot's own methods.

A random pi0 of LeRobot's own classes at mid size (language model 512 wide, 8 layers; 224 px, 256 patches; chunks of 50,
10 denoising steps) samples a chunk from one observation and takes training steps of two, on the CPU. `stock` calls
LeRobot's `sample_actions` and `forward`; `plain` is the same through the seam, and `prompted` has a mask and a point.
In the step LoRA on the language model learns, in both. All are timed in turn within one process.

Targets: a plain chunk takes at most 1.03 of LeRobot's time, a plain step at most 1.05.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import Figure, Report, parser, publish
from bench.timing import Ratio, in_turn

if TYPE_CHECKING:
    from pixelvla_core.api import Sample
    from pixelvla_core.model.pixelvla import PixelVLA

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
INSTRUCTION, STATE, DIM = "put the red cube on the green plate", 8, 7
CHUNK_AT_MOST, STEP_AT_MOST = 1.03, 1.05


def model(folder: Path, quick: bool) -> PixelVLA:
    """A random pi0 with LoRA, core's encoders and its own head around it."""
    from pixelvla_pi0.adapter import build
    from pixelvla_pi0.config import Pi0Options
    from pixelvla_pi0.sizes import Sizes
    from pixelvla_pi0.start import words_of, write_random

    from pixelvla_core.model import freeze, lora
    from pixelvla_core.model.config import NativeHeadConfig, PixelEncoderConfig, PromptEncoderConfig
    from pixelvla_core.model.native_head import NativeHead
    from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
    from pixelvla_core.model.pixelvla import PixelVLA
    from pixelvla_core.model.prompt_encoder import VisualPromptEncoder

    side = 56 if quick else 224
    config = {"image_resolution": (side, side), **({"chunk_size": 4, "n_action_steps": 4} if quick else {})}
    features = {"observation.images.front": (3, side, side), "observation.state": (STATE,), "action": (DIM,)}
    sizes = Sizes() if quick else Sizes(**MID)
    write_random(folder, words_of([INSTRUCTION]), sizes=sizes, config=config, features=features)
    adapter = build(Pi0Options(), weights=str(folder))
    lora.inject(adapter.module, [adapter.spec.groups["llm"]], rank=32, alpha=16)
    wrapped = PixelVLA(
        adapter,
        NativeHead(NativeHeadConfig(), adapter.spec, dim=DIM),
        pixel_encoder=MultiscalePixelEncoder(PixelEncoderConfig(), adapter.spec),
        prompt_encoder=VisualPromptEncoder(PromptEncoderConfig(), adapter.spec),
    )
    freeze.apply(wrapped, ["lora"])
    return wrapped.eval()


def sample(horizon: int, marked: bool) -> Sample:
    """A square picture that needs no letterbox, a state, a chunk; a mask and a point if it is marked."""
    import numpy as np

    from pixelvla_core.api import Point, Sample

    rng = np.random.default_rng(0)
    region = np.zeros((1, 224, 224), bool)
    region[0, 60:120, 80:150] = True
    plain = Sample(
        images={"front": rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)},
        instruction=INSTRUCTION,
        state=rng.normal(size=STATE).astype(np.float32),
        actions=rng.uniform(-1, 1, (horizon, DIM)).astype(np.float32),
        key="bench",
    )
    return replace(plain, prompts={"front": (Point(0.5, 0.4),)}, masks={"front": region}) if marked else plain


def chunks(wrapped: PixelVLA) -> dict[str, Callable[[], object]]:
    """Name of the way -> a call that samples one chunk from inputs that are prepared."""
    horizon = wrapped.head.horizon
    plain, prompted = (wrapped.collate([sample(horizon, marked)], train=False) for marked in (False, True))
    inputs, core = _stock_inputs(plain.inputs), wrapped.backbone.core  # type: ignore[attr-defined]
    return {
        "stock": lambda: core.sample_actions(*inputs),
        "plain": lambda: wrapped.predict(plain),
        "prompted": lambda: wrapped.predict(prompted),
    }


def steps(wrapped: PixelVLA) -> dict[str, Callable[[], object]]:
    """Name of the way -> a call that computes the loss of two samples and its gradient."""
    horizon = wrapped.head.horizon
    plain, prompted = (wrapped.collate([sample(horizon, marked)] * 2, train=True) for marked in (False, True))
    base: Any = wrapped.base
    inputs, actions = _stock_inputs(plain.inputs), base.prepare_action({"action": plain.actions_BHA})

    def stock() -> None:
        noise, time = base.model.sample_noise(actions.shape, "cpu"), base.model.sample_time(2, "cpu")
        base.model.forward(*inputs, actions, noise, time)[:, :, :DIM].mean().backward()
        wrapped.zero_grad()

    def ours(batch: Any) -> None:
        wrapped.loss(batch).backward()
        wrapped.zero_grad()

    return {"stock": stock, "plain": lambda: ours(plain), "prompted": lambda: ours(prompted)}


def _stock_inputs(inputs: Any) -> tuple[Any, ...]:
    """What LeRobot's methods read, in their order."""
    shown = inputs["token_mask"].new_ones(len(inputs["state"]))
    return [inputs["image:front"]], [shown], inputs["tokens"], inputs["token_mask"], inputs["state"]


def measure(quick: bool) -> Report:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        wrapped = model(Path(folder) / "base", quick)
    size = sum(parameter.numel() for parameter in wrapped.base.parameters())
    details: dict[str, Any] = {"parameters": size, "threads": torch.get_num_threads()}
    figures = []
    for what, calls, limit in (("chunk", chunks(wrapped), CHUNK_AT_MOST), ("step", steps(wrapped), STEP_AT_MOST)):
        details[what] = in_turn(calls, rounds=2 if quick else 15).summary("stock")
        figures += _figures(what, details[what], limit)
    return Report(figures=figures, details=details)


def _figures(what: str, ways: dict[str, Any], limit: float) -> list[Figure]:
    kind = {"chunk": "a chunk of pi0", "step": "a training step of pi0"}[what]

    def figure(way: str, clock: str, words: str, **target: float) -> Figure:
        ratio = Ratio(**ways[way][clock])
        return ratio.figure(lambda value: value, what=f"{words} of {kind}, {way}, to LeRobot's", unit="x", **target)

    return [
        figure("plain", "ratio", "time", at_most=limit),
        figure("plain", "cpu_ratio", "processor time"),
        figure("prompted", "ratio", "time"),
        figure("prompted", "cpu_ratio", "processor time"),
    ]


def main() -> None:
    args = parser(__doc__).parse_args()
    publish(measure(args.quick), args.json)


if __name__ == "__main__":
    main()
