"""What a step of stage ``cat`` costs: ``python -m bench.training``.

The model is a random OpenVLA with a language model of 150 M parameters that reads 224 px images (256 patches). The ways
to make the same step are timed in turn within one process; the peak memory of each is that of a process of its own:

- ``autograd``: the head's queries at the end of the whole sequence, autograd through the frozen transformer.
- ``frozen``: the frozen prefix without autograd, then the queries behind its keys and values (what the trainer does).
- ``features``: as ``frozen``, with the vision pass read from the cache.
- ``hidden``: keys and values of the prefix read from the cache.

Batches have 8 samples, as in the mini recipes' order of size: with very few, reading the weights for the head's queries
alone takes as long as computing with them.

Targets: ``frozen`` at least 2 times, ``hidden`` at least 10 times the samples/s of ``autograd``.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import midsize
from bench.report import Figure, Report, parser, publish
from bench.timing import Ratio, in_turn, own_process, peak_mib

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

COMPARE = "compare"
WAYS = ("autograd", "frozen", "features", "hidden")
BATCH, SAMPLES = 8, 8
AT_LEAST = {"frozen": 2.0, "hidden": 10.0}


class Frames:
    """A dataset of random images and actions."""

    camera, fps, fingerprint = "front", 5.0, "bench"

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Any:
        from pixelvla_core.api import Sample

        drawn, side = np.random.default_rng(index), midsize.SIDE
        actions = drawn.uniform(-1, 1, (horizon, midsize.ACTION_DIM)).astype(np.float32)
        return Sample(
            images={"front": drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)} if images else {},
            instruction=midsize.INSTRUCTION,
            actions=actions,
            action_valid=np.ones(horizon, bool),
        )

    def frame_key(self, index: int) -> str:
        return str(index)


class Steps:
    """A stage's steps, one per call.

    Args:
        way: One of `WAYS`.
        base: The base model; ways may share it, each has its own head.
        steps: How many calls there may be.
    """

    def __init__(self, way: str, base: OpenVLAAdapter, steps: int) -> None:
        from pixelvla_core.model import freeze
        from pixelvla_core.recipe import Part, Recipe, Stage
        from pixelvla_core.train.cache import open_cache
        from pixelvla_core.train.loader import Source
        from pixelvla_core.train.optim import make_optimizer
        from pixelvla_core.train.order import Order
        from pixelvla_core.train.stage import Objective

        kind = way if way in ("features", "hidden") else "none"
        stage = Stage(train=["head"], steps=steps, batch_size=BATCH, prompts=False, cache=kind)
        model, data = midsize.wrapped(base), Frames()
        freeze.apply(model, stage.train)
        model.train()
        recipe = Recipe(data=Part("bench"))
        cache = None if kind == "none" else open_cache(model, recipe, stage, data, lambda text: None, lambda: None)
        self.cached_mib = 0.0 if cache is None else cache.store.layout.row_bytes / 2**20
        self.objective = Objective(model, stage, autograd=way == "autograd")
        self.optimizer = make_optimizer(self.objective, stage)
        self.source = Source(data, model, stage, Order(len(data), 0, "cat"), cache=cache)
        self.device, self.number = model.device, 0

    def __call__(self) -> None:
        from pixelvla_core.train.order import Slot

        item = self.source.item(Slot(self.number))
        self.objective(*item.on(self.device)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.number += 1


def base_model(quick: bool) -> OpenVLAAdapter:
    """The base whose trunk is frozen."""
    return midsize.backbone(midsize.TINY if quick else midsize.MIDSIZE)


def compare(rounds: int, quick: bool) -> dict[str, Any]:
    """Time all ways in turn, in this process."""
    base = base_model(quick)
    timings = in_turn({way: Steps(way, base, rounds + 1) for way in WAYS}, rounds)
    return {
        "ways": timings.summary("autograd"),
        "speedups": {way: timings.speedup(way, "autograd") for way in WAYS},
        "lm_parameters": midsize.lm_parameters(base),
    }


def memory(way: str, quick: bool) -> dict[str, float]:
    """Make two steps; this process does nothing else."""
    step = Steps(way, base_model(quick), 2)
    before = peak_mib()
    step()
    step()
    return {"peak_mib": peak_mib(), "peak_before_steps_mib": before, "cache_mib_per_sample": step.cached_mib}


def measure(rounds: int, quick: bool) -> Report:
    """Start the processes; the caches lie in a folder that is removed again."""
    flags = ["--quick"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        start = partial(own_process, "bench.training", *flags, "--rounds", str(rounds), env={"PIXELVLA_CACHE": folder})
        found = start("--way", COMPARE)
        found["memory"] = {way: start("--way", way) for way in WAYS}
    peaks = [
        Figure(what=f"peak memory of a step of stage cat: {way}", value=row["peak_mib"], unit="MiB")
        for way, row in found["memory"].items()
    ]
    return Report(figures=[*speedups(found["speedups"]), *peaks], details=found)


def speedups(found: dict[str, Any], variant: str = "") -> list[Figure]:
    """How many times as fast as with autograd each way is: by the clock, and in processor time.

    Args:
        found: Way -> `Timings.speedup`.
    """
    figures = []
    for way in [way for way in found if way != "autograd"]:
        what = f"a step of stage cat{variant}, {way} against autograd"
        clock, cpu = (Ratio(**found[way][name]) for name in ("wall", "cpu"))
        figures += [
            clock.figure(float, what=f"samples/s of {what}", unit="x", at_least=AT_LEAST.get(way)),
            cpu.figure(float, what=f"samples per processor second of {what}", unit="x"),
        ]
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--way", choices=[COMPARE, *WAYS], help="measure speed or memory in this process")
    arguments.add_argument("--rounds", type=int, default=9)
    args = arguments.parse_args()
    if args.way == COMPARE:
        print(json.dumps(compare(3 if args.quick else args.rounds, args.quick)))
    elif args.way:
        print(json.dumps(memory(args.way, args.quick)))
    else:
        publish(measure(args.rounds, args.quick), args.json)


if __name__ == "__main__":
    main()
