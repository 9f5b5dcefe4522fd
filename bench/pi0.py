"""What pixelvla costs around LeRobot's pi0, and what its faster sampler saves, on the CPU.

A chunk is sampled from one observation by LeRobot's own `PI0Policy.predict_action_chunk` (`lerobot`), by the wrapped
model without prompts (`plain`), with a point and a mask (`prompted`), and without prompts by the sampler `fast`. A
training step of two samples is LeRobot's `PI0Policy.forward`, backward and AdamW against the same through the wrapped
model; LoRA on the language model learns in each. Weights are shared, inputs are at hand. Each way is timed against
LeRobot's in rounds of A B B A within one process, until the 95 % interval of the ratio is a point wide or time is up;
a figure is the median of the rounds. Peak memory is that of processes of their own, which make two steps.

Targets, with and without a prompt: a chunk takes at most 1.03 of LeRobot's time, on pi0-mini and at mid size; a step at
most 1.05 of its time and 1.02 of its memory. The sampler `fast` gives at least 1.5 times the chunks/s at mid size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bench import pi0_models, predictions
from bench.report import Figure, Report, parser, publish
from bench.timing import Enough, Ratio, own_process, paired, peak_mib

TO = "lerobot"
WORDS = {"plain": "without prompts", "prompted": "with a point and a mask"}
ENOUGH = {
    "chunk": {"mini": Enough(width=0.01, limit_s=60), "mid": Enough(width=0.01, limit_s=150)},
    "step": {"mini": Enough(width=0.01, limit_s=30), "mid": Enough(width=0.01, limit_s=100)},
}
CHUNK_AT_MOST, STEP_AT_MOST, MEMORY_AT_MOST, FAST_AT_LEAST = 1.03, 1.05, 1.02, 1.5


def compare(what: str, size: str, quick: bool) -> dict[str, Any]:
    """Time the ways to sample a chunk or to make a step, in this process."""
    import torch

    adapter = pi0_models.base(size, quick)
    calls = pi0_models.chunks(adapter) if what == "chunk" else pi0_models.steps(adapter, (TO, *WORDS))
    timings = paired(calls, TO, predictions.QUICK if quick else ENOUGH[what][size])
    speedups = {name: pair.speedup(name, TO) for name, pair in timings.items()}
    parameters = sum(parameter.numel() for parameter in adapter.module.parameters())
    here = {"parameters": parameters, "threads": torch.get_num_threads()}
    return {**predictions.rows(timings, TO), "speedups": speedups, **here}


def memory(way: str, quick: bool) -> dict[str, float]:
    """Make two steps at mid size; this process does nothing else."""
    step = pi0_models.steps(pi0_models.base("mid", quick), [way])[way]
    before = peak_mib()
    step()
    step()
    return {"peak_mib": peak_mib(), "peak_before_steps_mib": before}


def measure(quick: bool) -> Report:
    """Start the processes, one after the other."""
    flags = ["--quick"] if quick else []

    def start(*way: str) -> Any:
        return own_process("bench.pi0", "--way", *way, *flags)

    found = {what: {size: start(what, size) for size in pi0_models.SIZES} for what in ENOUGH}
    peaks = {way: start("memory", way) for way in (TO, *WORDS)}
    figures = [figure for size in pi0_models.SIZES for figure in _chunk_figures(size, found["chunk"][size])]
    figures += [figure for size in pi0_models.SIZES for figure in _step_figures(size, found["step"][size])]
    return Report(figures=[*figures, *_memory_figures(peaks)], details={**found, "memory": peaks})


def _chunk_figures(size: str, found: dict[str, Any]) -> list[Figure]:
    figures = _ratios(f"a chunk of pi0, {size}", found["ways"], CHUNK_AT_MOST)
    fast = {clock: Ratio(**ratio) for clock, ratio in found["speedups"]["fast"].items()}
    goal = FAST_AT_LEAST if size == "mid" else None
    return [
        *figures,
        fast["wall"].figure(float, what=f"chunks/s of pi0, {size}, fast against LeRobot's", unit="x", at_least=goal),
        fast["cpu"].figure(float, what=f"chunks per processor second of pi0, {size}, fast against LeRobot's", unit="x"),
        *(
            Figure(what=f"latency of a chunk of pi0, {size}: {way}", value=1000 * row["median_s"], unit="ms")
            for way, row in sorted(found["ways"].items())
        ),
    ]


def _step_figures(size: str, found: dict[str, Any]) -> list[Figure]:
    figures = _ratios(f"a training step of pi0, {size}", found["ways"], STEP_AT_MOST)
    taken = 1000 * found["ways"][TO]["median_s"]
    return [*figures, Figure(what=f"a training step of pi0, {size}: {TO}", value=taken, unit="ms")]


def _ratios(what: str, ways: dict[str, Any], at_most: float) -> list[Figure]:
    """How long each way takes, to LeRobot: by the clock, and in processor time, which other programs hardly touch."""
    return [
        Ratio(**ways[way][clock]).figure(float, what=f"{kind} of {what}, {words}, to LeRobot's", unit="x", **target)
        for way, words in WORDS.items()
        for clock, kind, target in (("ratio", "time", {"at_most": at_most}), ("cpu_ratio", "processor time", {}))
    ]


def _memory_figures(peaks: dict[str, dict[str, float]]) -> list[Figure]:
    stock = peaks[TO]["peak_mib"]
    return [
        *(
            Figure(
                what=f"peak memory of a training step of pi0, mid, {words}, to LeRobot's",
                value=peaks[way]["peak_mib"] / stock,
                unit="x",
                at_most=MEMORY_AT_MOST,
            )
            for way, words in WORDS.items()
        ),
        Figure(what=f"peak memory of a training step of pi0, mid: {TO}", value=stock, unit="MiB"),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--way", nargs=2, metavar=("WHAT", "OF"), help="measure this in this process")
    args = arguments.parse_args()
    ways: dict[str, Callable[[str], Any]] = {
        "chunk": lambda size: compare("chunk", size, args.quick),
        "step": lambda size: compare("step", size, args.quick),
        "memory": lambda way: memory(way, args.quick),
    }
    if args.way:
        print(json.dumps(ways[args.way[0]](args.way[1])))
    else:
        publish(measure(args.quick), args.json)


if __name__ == "__main__":
    main()
