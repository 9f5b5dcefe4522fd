"""How fast the embedded simulator is: ``python -m bench.tabletop_speed``.

Whole expert episodes are played, resets and the expert included. "frames" draws every step, "frames and masks" also
the exact instance masks, "physics only" draws nothing. Processor time per frame is printed beside the wall clock,
because the latter depends on what else the machine does. Peak memory is that of one process.

Target: at least 150 drawn frames/s by two processes.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from pixelvla_tabletop import spec
from pixelvla_tabletop.env import TabletopEnv
from pixelvla_tabletop.expert import Expert

from bench.report import Figure, Report, parser, publish
from bench.timing import own_process, peak_mib, processor_seconds

KINDS = ("frames", "frames and masks", "physics only")
PROCESSES = (1, 2)
AT_LEAST = {("frames", 2): 150.0}


def play(kind: str, size: int, first_seed: int, seconds: float) -> tuple[int, float, float]:
    """Play episodes for so long; return the number of steps, the wall-clock seconds and the processor seconds."""
    env = TabletopEnv(image_size=size)
    draws = kind != "physics only"
    env.reset(seed=first_seed)
    start, busy, steps, seed = time.perf_counter(), processor_seconds(), 0, first_seed
    while time.perf_counter() - start < seconds:
        env.reset(seed=seed, options={"observe": draws})
        expert, done, seed = Expert(env), False, seed + 1
        while not done:
            _, _, terminated, truncated, _ = env.step(expert.act(), observe=draws)
            if kind == "frames and masks":
                env.segmentation()
            done, steps = terminated or truncated, steps + 1
    return steps, time.perf_counter() - start, processor_seconds() - busy


def played(kind: str, size: int, processes: int, seconds: float) -> dict[str, float | str | int]:
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


def measure(size: int, seconds: float) -> Report:
    rows = [played(kind, size, processes, seconds) for kind in KINDS for processes in PROCESSES]
    figures = [
        Figure(
            what=f"simulator steps, {row['kind']}, {size} px, {row['processes']} process(es)",
            value=row["frames_per_second"],
            unit="/s",
            at_least=AT_LEAST.get((row["kind"], row["processes"])),
        )
        for row in rows
    ]
    peak = own_process("bench.tabletop_speed", "--memory", "--size", str(size))
    figures.append(Figure(what="peak memory of a simulator process", value=peak, unit="MiB"))
    return Report(figures=figures, details={"rows": rows})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--size", type=int, default=spec.IMAGE_SIZE)
    arguments.add_argument("--memory", action="store_true", help="print the peak MiB of this process after an episode")
    args = arguments.parse_args()
    if args.memory:
        play(KINDS[0], args.size, 0, 0.5)
        print(json.dumps(peak_mib()))
    else:
        publish(measure(args.size, 0.5 if args.quick else args.seconds), args.json)


if __name__ == "__main__":
    main()
