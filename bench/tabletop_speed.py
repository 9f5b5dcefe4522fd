"""How fast the embedded simulator is: ``python bench/tabletop_speed.py``.

Whole expert episodes are played, resets and the expert included. "frames" draws every step, "frames and masks" also
the exact instance masks, "physics only" draws nothing. Processor time per frame is printed beside the wall clock,
because the latter depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from pixelvla_tabletop import spec
from pixelvla_tabletop.env import TabletopEnv
from pixelvla_tabletop.expert import Expert

LINE = (
    "{kind:17} {size} px, {processes} process(es): {frames_per_second:7.1f} steps/s, "
    "{processor_ms_per_frame:6.2f} ms of processor time each"
)
KINDS = ("frames", "frames and masks", "physics only")


def play(kind: str, size: int, first_seed: int, seconds: float) -> tuple[int, float, float]:
    """Play episodes for so long; return the number of steps, the wall-clock seconds and the processor seconds."""
    env = TabletopEnv(image_size=size)
    draws = kind != "physics only"
    env.reset(seed=first_seed)
    start, busy, steps, seed = time.perf_counter(), _processor_seconds(), 0, first_seed
    while time.perf_counter() - start < seconds:
        env.reset(seed=seed, options={"observe": draws})
        expert, done, seed = Expert(env), False, seed + 1
        while not done:
            _, _, terminated, truncated, _ = env.step(expert.act(), observe=draws)
            if kind == "frames and masks":
                env.segmentation()
            done, steps = terminated or truncated, steps + 1
    return steps, time.perf_counter() - start, _processor_seconds() - busy


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def measure(kind: str, size: int, processes: int, seconds: float) -> dict[str, float | str | int]:
    """Run `play` in that many processes at once and add up."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        # Each process is warmed up first, so that imports and shader compilation are not counted.
        list(pool.map(play, *zip(*[(kind, size, 0, 0.5)] * processes, strict=True)))
        results = list(pool.map(play, *zip(*[(kind, size, 1000 * i, seconds) for i in range(processes)], strict=True)))
    steps = sum(result[0] for result in results)
    return {
        "kind": kind,
        "size": size,
        "processes": processes,
        "frames_per_second": round(sum(result[0] / result[1] for result in results), 1),
        "processor_ms_per_frame": round(1000 * sum(result[2] for result in results) / steps, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=spec.IMAGE_SIZE)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    arguments = parser.parse_args()
    for kind in KINDS:
        for processes in (1, 2):
            row = measure(kind, arguments.size, processes, arguments.seconds)
            print(json.dumps(row) if arguments.json else LINE.format(**row), flush=True)


if __name__ == "__main__":
    main()
