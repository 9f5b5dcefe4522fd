"""Run every benchmark and keep the figures: ``python -m bench.run``, which is what ``make bench`` does.

Each benchmark is a process of its own, `python -m bench.NAME --json`. After each of them the results file and the
tables in docs/benchmarks.md are replaced, so an interrupted run loses only what it was doing. A missed target is
reported and is no error; the exit status is 1 only if a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import table
from bench.machine import circumstances, code
from bench.report import readable
from bench.timing import ROOT
from pixelvla_core.files import write_json, write_text

BENCHMARKS = (
    "cli_startup",
    "overhead",
    "chunk",
    "training",
    "pi0",
    "tabletop_speed",
    "tabletop_record",
    "segmenters",
    "annotate",
    "annotate_models",
    "annotate_quality",
    "sidecar",
    "accelerator",
)
RESULTS, PAGE = ROOT / "bench" / "results.json", ROOT / "docs" / "benchmarks.md"
QUICK_RESULTS = ROOT / "out" / "bench" / "quick.json"


def run_one(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark; what it reports, or under "error" the last line that it said before it failed."""
    command = [sys.executable, "-m", f"bench.{name}", "--json", *(["--quick"] if quick else [])]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - start, 1)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return {"error": f"exit status {done.returncode}: {said[-1]}", "seconds": seconds}
    return json.loads(done.stdout.splitlines()[-1]) | {"error": "", "seconds": seconds}


def run(names: Sequence[str], quick: bool, results: Path, page: Path | None) -> bool:
    """Run these benchmarks and write what they found; what the file holds of others stays.

    Returns:
        Whether none failed.
    """
    kept = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    where, fine = circumstances(), True
    for name in names:
        print(f"{name} ...", flush=True)
        found = run_one(name, quick)
        kept[name] = found | {"circumstances": where, "code": code(name)}
        fine = fine and not found["error"]
        print(f"failed: {found['error']}" if found["error"] else readable(found), flush=True)
        write_json(results, kept)
        if page is not None:
            text = page.read_text(encoding="utf-8")
            write_text(page, table.into_page(text, table.render(ordered(kept))))
    return fine


def ordered(results: dict[str, Any]) -> dict[str, Any]:
    """In the order in which benchmarks run, whatever the order in the file."""
    return {name: results[name] for name in BENCHMARKS if name in results}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this one; may be given several times")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, into a file of their own; see that it works")
    parser.add_argument("--results", type=Path, help="where the figures are kept")
    args = parser.parse_args()
    names = args.only or BENCHMARKS
    results = args.results or (QUICK_RESULTS if args.quick else RESULTS)
    return 0 if run(names, args.quick, results, PAGE if results == RESULTS else None) else 1


if __name__ == "__main__":
    sys.exit(main())
