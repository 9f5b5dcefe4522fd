"""How long the command line takes to start: ``pixelvla --help`` at most 0.5 s, ``pixelvla plugins`` at most 1.5 s.

Run it with ``python -m bench.cli_startup``; it prints JSON and exits with 1 if a limit is missed or torch is imported.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"--help": 0.5, "plugins": 1.5}
RUNS = 9


def measure(arguments: list[str]) -> dict[str, float]:
    """Run the installed command in fresh processes; the first run, which reads from disk, is not counted.

    Returns:
        Seconds by the clock (median and worst), and of processor time, which other work on the machine stretches less.
    """
    command = [str(Path(sys.executable).with_name("pixelvla")), *arguments]
    wall, cpu = [], []
    for _ in range(RUNS + 1):
        start, used = time.perf_counter(), _children_cpu()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        cpu.append(_children_cpu() - used)
    return {"median_s": statistics.median(wall[1:]), "worst_s": max(wall[1:]), "cpu_s": statistics.median(cpu[1:])}


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def imports_torch(arguments: list[str]) -> bool:
    """Whether the command imports torch."""
    code = f"import sys; from pixelvla_core.cli.main import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode != 0


def main() -> int:
    results = {}
    for argument, limit in LIMITS.items():
        found = measure([argument])
        ok = found["median_s"] <= limit and not imports_torch([argument])
        results[f"pixelvla {argument}"] = {
            **found,
            "limit_s": limit,
            "imports_torch": imports_torch([argument]),
            "ok": ok,
        }
    print(json.dumps(results, indent=2))
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
