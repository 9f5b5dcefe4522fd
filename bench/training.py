"""What a step of stage ``cat`` costs: ``python -m bench.training``.

The model is a random OpenVLA with a language model of 150 M parameters that reads 224 px images (256 patches). Each way
to make the same step runs in a process of its own, so that its peak memory is its own:

- ``autograd``: the head's queries at the end of the whole sequence, autograd through the frozen transformer.
- ``frozen``: the frozen prefix without autograd, then the queries behind its keys and values (what the trainer does).
- ``features``: as ``frozen``, with the vision pass read from the cache.
- ``hidden``: keys and values of the prefix read from the cache.

Targets: ``frozen`` at least 2 times, ``hidden`` at least 10 times the samples/s of ``autograd``.
"""

from __future__ import annotations

import json
import tempfile
import time
from typing import Any

import numpy as np

from bench import midsize
from bench.report import Figure, Report, parser, publish
from bench.timing import own_process, peak_mib

WAYS = ("autograd", "frozen", "features", "hidden")
BATCH, SAMPLES = 2, 4
AT_LEAST = {"frozen": 2.0, "hidden": 10.0}


class Frames:
    """A dataset of random images and actions."""

    camera, fps, fingerprint = "front", 5.0, "bench"

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Any:
        from pixelvla_core.api import Sample

        drawn = np.random.default_rng(index)
        side = midsize.SIDE
        return Sample(
            images={"front": drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)} if images else {},
            instruction=midsize.INSTRUCTION,
            actions=drawn.uniform(-1, 1, (horizon, 7)).astype(np.float32),
            action_valid=np.ones(horizon, bool),
        )

    def frame_key(self, index: int) -> str:
        return str(index)


def train(way: str, steps: int, quick: bool) -> dict[str, float]:
    """Train a few steps one way, in this process."""
    from pixelvla_core.model import freeze
    from pixelvla_core.recipe import Part, Recipe, Stage
    from pixelvla_core.train.cache import open_cache
    from pixelvla_core.train.loader import Source
    from pixelvla_core.train.optim import make_optimizer
    from pixelvla_core.train.order import Order, Slot
    from pixelvla_core.train.stage import Objective

    kind = way if way in ("features", "hidden") else "none"
    stage = Stage(train=["head"], steps=steps, batch_size=BATCH, prompts=False, cache=kind)
    base = midsize.backbone(midsize.TINY if quick else midsize.MIDSIZE)
    model, data = midsize.wrapped(base), Frames()
    freeze.apply(model, stage.train)
    model.train()
    recipe = Recipe(data=Part("bench"))
    start = time.perf_counter()
    cache = None if kind == "none" else open_cache(model, recipe, stage, data, lambda text: None, lambda: None)
    caching = time.perf_counter() - start
    objective = Objective(model, stage, autograd=way == "autograd")
    optimizer = make_optimizer(objective, stage)
    source = Source(data, model, stage, Order(len(data), 0, "cat"), cache=cache)
    resting = peak_mib()
    seconds, busy = [], []
    for number in range(steps + 1):
        start, used = time.perf_counter(), time.process_time()
        objective(*source.item(Slot(number)).on(model.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - used)
    step = float(np.median(seconds[1:]))
    return {
        "samples_per_s": BATCH / step,
        "step_s": step,
        "step_cpu_s": float(np.median(busy[1:])),
        "peak_mib": peak_mib(),
        "peak_before_steps_mib": resting,
        "caching_s": caching,
        "cache_mib_per_sample": 0.0 if cache is None else cache.store.layout.row_bytes / 2**20,
        "lm_parameters": midsize.lm_parameters(base),
    }


def measure(steps: int, quick: bool) -> Report:
    """Train each way in a process of its own; the caches lie in a folder that is removed again."""
    flags, ways = ["--quick"] if quick else [], {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            # Cached steps take milliseconds, so more of them are timed.
            count = str(steps * (10 if way == "hidden" else 1))
            command = ["bench.training", "--way", way, "--steps", count, *flags]
            ways[way] = own_process(*command, env={"PIXELVLA_CACHE": folder})
    ratios = {way: ways[way]["samples_per_s"] / ways["autograd"]["samples_per_s"] for way in WAYS}
    figures = [
        Figure(
            what=f"samples/s of a step of stage cat, {way} against autograd",
            value=ratios[way],
            unit="x",
            at_least=AT_LEAST.get(way),
        )
        for way in WAYS[1:]
    ]
    figures += [
        Figure(what=f"peak memory of a step of stage cat: {way}", value=ways[way]["peak_mib"], unit="MiB")
        for way in WAYS
    ]
    return Report(figures=figures, details={"ways": ways, "ratio_to_autograd": ratios})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--way", choices=WAYS, help="measure this one in this process")
    arguments.add_argument("--steps", type=int, default=4)
    args = arguments.parse_args()
    if args.way:
        print(json.dumps(train(args.way, args.steps, args.quick)))
    else:
        publish(measure(args.steps, args.quick), args.json)


if __name__ == "__main__":
    main()
