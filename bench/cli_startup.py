"""How long the command line takes to start: ``pixelvla --help`` (at most 0.5 s) and ``pixelvla plugins`` (at most 1.5 s).

Run it with ``python -m bench.cli_startup``; it prints JSON and exits with 1 if a limit is missed or torch is imported.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMITS = {"--help": 0.5, "plugins": 1.5}
RUNS = 9


def measure(arguments: list[str]) -> dict[str, float]:
    """Run the installed command in fresh processes; the first run, which reads from disk, is not counted."""
    command = [str(Path(sys.executable).with_name("pixelvla")), *arguments]
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return {"median_s": statistics.median(seconds[1:]), "worst_s": max(seconds[1:])}


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
