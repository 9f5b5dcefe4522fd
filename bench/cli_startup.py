"""How long the command line takes to start: ``pixelvla --help`` at most 0.5 s, ``pixelvla plugins`` at most 1.5 s.

Run it with ``python -m bench.cli_startup``. Neither may import torch.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.report import Figure, Report, parser, publish
from bench.timing import own_process, peak_mib, processor_seconds

LIMITS = {"--help": 0.5, "plugins": 1.5}
RUNS, QUICK_RUNS = 9, 2


def time_runs(arguments: list[str], runs: int) -> dict[str, float]:
    """Run the installed command in fresh processes; the first run, which reads from disk, is not counted.

    Returns:
        Seconds by the clock (median and worst), and of processor time, which other work on the machine stretches less.
    """
    command = [str(Path(sys.executable).with_name("pixelvla")), *arguments]
    wall, cpu = [], []
    for _ in range(runs + 1):
        start, used = time.perf_counter(), processor_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        cpu.append(processor_seconds() - used)
    return {"median_s": statistics.median(wall[1:]), "worst_s": max(wall[1:]), "cpu_s": statistics.median(cpu[1:])}


def inside(arguments: list[str]) -> dict[str, Any]:
    """Run the command within this process; return whether torch came with it, and the peak memory."""
    from pixelvla_core.cli.main import main as command

    command(arguments)
    return {"imports_torch": "torch" in sys.modules, "peak_mib": peak_mib()}


def measure(quick: bool) -> Report:
    figures, details = [], {}
    for argument, limit in LIMITS.items():
        name = f"pixelvla {argument}"
        details[name] = found = time_runs([argument], QUICK_RUNS if quick else RUNS)
        found |= own_process("bench.cli_startup", f"--inside={argument}")
        figures += [
            Figure(what=f"{name}, start to end", value=found["median_s"], unit="s", at_most=limit),
            Figure(what=f"{name}, imports of torch", value=found["imports_torch"], unit="", at_most=0),
            Figure(what=f"peak memory of {name}", value=found["peak_mib"], unit="MiB"),
        ]
    return Report(figures=figures, details=details)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--inside", choices=LIMITS, help="run the command in this process")
    args = arguments.parse_args()
    if args.inside:
        print(json.dumps(inside([args.inside])))
    else:
        publish(measure(args.quick), args.json)


if __name__ == "__main__":
    main()
