"""The figures again at the size of openvla-7b, on a CUDA device: random bfloat16 weights, nothing to download.

A chunk, a chunk with a mask and a prompt of each kind, and a native action, timed in turn: as they are (`eager`), with
torch.compile, with CUDA graphs, and with both, each variant in a process of its own. What a variant cannot do is
reported with the reason. Latencies stand beside the least time that the card's arithmetic and memory allow, both
measured. Stage cat is timed eagerly: autograd through the frozen trunk, the trunk without, and keys and values at hand.

Targets: as on the CPU. Without a CUDA device nothing is measured.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import chunk, midsize, overhead, training
from bench.limits import Limits, Weights, measure_limits, operations, waiter
from bench.overhead import PROMPTED
from bench.report import Figure, Report, parser, publish
from bench.timing import Timings, in_turn, own_process, peak_mib

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

VARIANTS: Mapping[str, dict[str, Any] | None] = {
    "eager": None,
    "compile": {},
    "cuda graphs": {"backend": "cudagraphs"},
    "compile and cuda graphs": {"mode": "reduce-overhead"},
}
Calls = dict[str, Callable[[], Any]]


def base_model(device: str, quick: bool) -> OpenVLAAdapter:
    """The base at the size of openvla-7b, or a tiny one."""
    return midsize.backbone(midsize.TINY if quick else midsize.LARGE, device=device, dtype="bfloat16")


def predictions(variant: str, base: OpenVLAAdapter, device: str, rounds: int) -> dict[str, Any]:
    """Time the three ways to predict under one variant, in this process."""
    calls = chunk.predictors(base) | overhead.predictors(base, [PROMPTED])
    found: dict[str, Any] = {"operations": {name: operations(call) for name, call in calls.items()}}
    if VARIANTS[variant] is not None:
        for part in (base.module.vision_backbone, base.module.projector, base.module.language_model.model):
            part.compile(**VARIANTS[variant])
    able, failures = which_run(calls)
    timings = in_turn(able, rounds, waiter(device))
    found["ways"] = timings.summary("chunk") if "chunk" in able else {}
    return found | {"failures": failures, "peak_mib": device_peak_mib(device)}


def which_run(calls: Calls) -> tuple[Calls, dict[str, str]]:
    """Try each call; what the compiler or a graph cannot do is a finding, and the others are measured all the same."""
    able, failures = {}, {}
    for name, call in calls.items():
        stepped = new_step(call)
        try:
            for _ in range(3):
                stepped()
            able[name] = stepped
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return able, failures


def new_step(call: Callable[[], Any]) -> Callable[[], Any]:
    """Say where a prediction begins, so that CUDA graphs may reuse the memory of the one before."""
    import torch

    def step() -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return call()

    return step


def cat(base: OpenVLAAdapter, device: str, rounds: int) -> Timings:
    """Time a forward and backward pass of stage cat, eagerly, in this process."""
    from pixelvla_core.model import freeze
    from pixelvla_core.recipe import Stage
    from pixelvla_core.train.stage import Objective

    stage = Stage(train=["head"], steps=rounds, batch_size=8, prompts=False, precision="bfloat16")
    model, frames = midsize.wrapped(base), training.Frames()
    freeze.apply(model, stage.train)
    rng = np.random.default_rng(0)
    samples = [frames.sample(index, horizon=midsize.HORIZON, rng=rng) for index in range(stage.batch_size)]
    batch = model.collate(samples, train=True).to(model.device)
    through, frozen = Objective(model, stage, autograd=True), Objective(model, stage)
    past = model.prefill(batch)
    calls = {
        "autograd": lambda: through(batch).backward(),
        "frozen": lambda: frozen(batch).backward(),
        "hidden": lambda: frozen(batch, past=past).backward(),
    }
    return in_turn(calls, rounds, waiter(device))


def device_peak_mib(device: str) -> float:
    """Peak memory on the device, or of the process where the device is the CPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else peak_mib()


def in_this_process(way: str, device: str, quick: bool) -> dict[str, Any]:
    """What the process of one way prints."""
    if way == "limits":
        return asdict(measure_limits(device, **({"side": 256, "copied": 2**20} if quick else {})))
    base, rounds = base_model(device, quick), 2 if quick else 20
    if way == "cat":
        timings = cat(base, device, rounds)
        speedups = {way: timings.speedup(way, "autograd") for way in timings.wall}
        return {"ways": timings.summary("autograd"), "speedups": speedups, "peak_mib": device_peak_mib(device)}
    return predictions(way, base, device, rounds) | {"weights": asdict(Weights.of(base.module))}


def measure(device: str, quick: bool) -> Report:
    """Start one process per way; one that fails is noted, and the others go on."""
    found, notes = {}, []
    for way in ("limits", "cat", *VARIANTS):
        try:
            flags = ["--device", device, *(["--quick"] if quick else [])]
            found[way] = own_process("bench.accelerator", "--way", way, *flags)
        except subprocess.CalledProcessError as error:
            notes.append(f"{way}: its process ended with status {error.returncode}")
    return Report(figures=figures_of(found), details=found, notes=notes + failures_of(found))


def figures_of(found: dict[str, Any]) -> list[Figure]:
    """The figures of the ways that were measured; without the card's limits there are no shares of them."""
    limits = Limits(**found["limits"]) if "limits" in found else None
    figures = card(limits) if limits else []
    for variant in VARIANTS:
        if variant in found:
            figures += predicted(variant, found[variant], limits)
    if "cat" in found:
        figures += training.speedups(found["cat"]["speedups"])
        figures.append(Figure(what="peak device memory, stage cat", value=found["cat"]["peak_mib"], unit="MiB"))
    return figures


def failures_of(found: dict[str, Any]) -> list[str]:
    """What each variant could not do, and why."""
    return [
        f"{variant}, {name}: {why}"
        for variant in VARIANTS
        for name, why in found.get(variant, {}).get("failures", {}).items()
    ]


def card(limits: Limits) -> list[Figure]:
    """What the card can do at best."""
    return [
        Figure(what="arithmetic limit of the card, measured, bfloat16", value=limits.flops / 1e12, unit="TFLOP/s"),
        Figure(what="bandwidth limit of the card, measured", value=limits.bandwidth / 1e9, unit="GB/s"),
    ]


def predicted(variant: str, found: dict[str, Any], limits: Limits | None) -> list[Figure]:
    """The figures of one variant's predictions; those of a way that did not run are left out."""
    ways, figures = found["ways"], []
    floors = least_seconds(found, limits) if limits else {}
    for name, row in ways.items():
        figures.append(Figure(what=f"latency, {variant}: {name}", value=1000 * row["median_s"], unit="ms"))
        if name in floors:
            share = 100 * floors[name] / row["median_s"]
            figures.append(Figure(what=f"share of the card's limit, {variant}: {name}", value=share, unit="%"))
    if "native" in ways:
        figures.append(chunk.saved(ways["native"], f", {variant}"))
    if PROMPTED in ways:
        figures.append(overhead.added(PROMPTED, ways[PROMPTED], f", {variant}")[0])
    return [*figures, Figure(what=f"peak device memory, {variant}", value=found["peak_mib"], unit="MiB")]


def least_seconds(found: dict[str, Any], limits: Limits) -> dict[str, float]:
    """What each way to predict takes at least on such a card."""
    weights, work = Weights(**found["weights"]), found["operations"]
    return {
        "chunk": limits.floor_s(weights.chunk(work["chunk"])),
        PROMPTED: limits.floor_s(weights.chunk(work[PROMPTED])),
        "native": limits.floor_s(weights.native(work["native"], midsize.ACTION_DIM)),
    }


def main() -> None:
    import torch

    arguments = parser(__doc__)
    arguments.add_argument("--way", choices=["limits", "cat", *VARIANTS], help="measure this in this process")
    arguments.add_argument("--device", default="cuda", help="cuda, or cpu to see that it works (with --quick)")
    args = arguments.parse_args()
    if args.way:
        print(json.dumps(in_this_process(args.way, args.device, args.quick)))
    elif args.device.startswith("cuda") and not torch.cuda.is_available():
        publish(Report(skipped="there is no CUDA device"), args.json)
    else:
        publish(measure(args.device, args.quick), args.json)


if __name__ == "__main__":
    main()
