"""Sidecars at the size of Pixel-160K: ``python -m bench.sidecar``.

160,000 episodes of 41 frames with round masks at 224 x 224, made for the purpose: the masks of 100 episodes, which the
annotator puts into one file, repeated under other episode numbers. A first opening verifies every file and makes the
index, later ones find it; the first reading of a file makes its memory-mapped copy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.report import Figure, Report, parser, publish
from pixelvla_core.annotations.derive import derive_box, derive_line, derive_point
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import FORMAT, MANIFEST, VERSION, Annotation, to_table
from pixelvla_core.files import sha256

EPISODES, FRAMES, SIZE, PER_FILE, READS = 160_000, 41, 224, 100, 2000


def generate(folder: Path, episodes: int, per_file: int) -> int:
    """Write a sidecar and return its bytes."""
    table, files = block(per_file), []
    (folder / "rows").mkdir(parents=True)
    for first in range(0, episodes, per_file):
        path = folder / "rows" / f"episodes-{first:06d}-{first + per_file - 1:06d}.parquet"
        numbers = pa.array(table["episode"].to_numpy() + np.int32(first))
        shifted = table.set_column(0, table.schema.field("episode"), numbers)
        pq.write_table(shifted, path, compression="zstd", write_page_checksum=True)
        files.append({"path": f"rows/{path.name}", "sha256": sha256(path), "bytes": path.stat().st_size})
    facts = {"format": FORMAT, "version": VERSION, "dataset": "bench/sidecar", "fingerprint": "0" * 64}
    manifest = {**facts, "camera": "front", "counts": {"ok": episodes * FRAMES}, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return sum(entry["bytes"] for entry in files)


def block(episodes: int) -> pa.Table:
    """Rows of the first episodes, with prompts."""
    rows, (y, x) = [], np.mgrid[:SIZE, :SIZE]
    for episode in range(episodes):
        rng = np.random.default_rng(episode)
        centre, radius = rng.uniform(40, 180, 2), rng.uniform(8, 25)
        for frame in range(FRAMES):
            mask = (y - centre[0] - 0.5 * frame) ** 2 + (x - centre[1]) ** 2 < radius**2
            prompts = {
                "box": derive_box(mask),
                "points": (derive_point(mask, rng),),
                "lines": (derive_line(mask, rng),),
            }
            facts = {"episode": episode, "frame": frame, "camera": "front", "target": "cup", "source": "bench"}
            rows.append(Annotation(**facts, mask=Rle.encode(mask), **prompts))
    return to_table(rows)


def opening(folder: Path, cache: Path) -> tuple[float, float]:
    """Seconds, and peak MiB, of a fresh process that opens a sidecar."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pixelvla_core.annotations.reader import Sidecar\n"
        "start = time.perf_counter()\nSidecar(Path(sys.argv[1]), cache=Path(sys.argv[2]))\n"
        "print(time.perf_counter() - start)\nprint(Path('/proc/self/status').read_text())"
    )
    command = [sys.executable, "-c", code, str(folder), str(cache)]
    seconds, _, status = subprocess.run(command, check=True, capture_output=True, text=True).stdout.partition("\n")
    # Not getrusage, whose peak is at least that of the process which started this one.
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return float(seconds), int(peak) / 1024


def reading(folder: Path, cache: Path, episodes: int, per_file: int) -> tuple[float, float]:
    """Median milliseconds to find a frame, its prompts and its mask: the first of each file, then random ones."""
    sidecar, rng = Sidecar(folder, cache=cache), np.random.default_rng(0)
    firsts = [(episode, 0) for episode in range(0, episodes, per_file)]
    random = list(zip(rng.integers(episodes, size=READS), rng.integers(FRAMES, size=READS), strict=True))
    return _median(sidecar, firsts), _median(sidecar, random)


def _median(sidecar: Sidecar, places: Iterable[tuple[int, int]]) -> float:
    taken = []
    for episode, frame in places:
        start = time.perf_counter()
        (row,) = sidecar.find(episode, frame)
        assert row.mask is not None
        row.mask.decode()
        taken.append(1000 * (time.perf_counter() - start))
    return float(np.median(taken))


def measure(episodes: int, per_file: int) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "sidecar", Path(name) / "cache"
        size = generate(folder, episodes, per_file) / (episodes * FRAMES)
        first, first_peak = opening(folder, cache)
        again, peak = opening(folder, cache)
        copying, milliseconds = reading(folder, cache, episodes, per_file)
    figures = [
        Figure(what="size per annotated frame", value=size, unit="bytes", at_most=600),
        Figure(what="prompts and mask of a random frame (median)", value=milliseconds, unit="ms", at_most=1),
        Figure(what="first frame of a file, which copies it (median)", value=copying, unit="ms"),
        Figure(what="first opening, which verifies and indexes", value=first, unit="s", at_most=2),
        Figure(what="peak memory of a first opening", value=first_peak, unit="MiB", at_most=300),
        Figure(what="later opening", value=again, unit="s", at_most=2),
        Figure(what="peak memory of a later opening", value=peak, unit="MiB", at_most=300),
    ]
    return Report(
        figures=figures, details={"episodes": episodes, "rows": episodes * FRAMES, "files": episodes // per_file}
    )


def main() -> None:
    arguments = parser(__doc__).parse_args()
    report = measure(40, 20) if arguments.quick else measure(EPISODES, PER_FILE)
    publish(report, arguments.json)


if __name__ == "__main__":
    main()
