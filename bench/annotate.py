"""The annotation pipeline itself, whatever its models: ``python -m bench.annotate``.

Memory and profile: models that answer at once, so that only the pipeline is left. The profile counts processor time of
all threads, at two sizes of image, for the whole command but for importing its modules. Ray: a tracker that works about
ten milliseconds on each frame with one thread; both runners from an empty folder, Ray with starting it, A B B A.

Targets: memory at 2,000 episodes at most 1.2 times that at 200; at least 90 % of the processor time in decoding videos;
two workers on two cores at least 1.6 times as fast as one process.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.annotate_data import LENGTH, record, repeated
from bench.report import Figure, Report, parser, publish
from bench.timing import Ratio, own_process

SMALL, LARGE = (256, 256), (480, 640)
"""Height and width as LIBERO, Bridge and Fractal in LeRobot's format have them, and as most cameras record."""
KINDS = ("gripper", "reasoner", "detector", "segmenter", "tracker")
FREE = [f"{kind}=free" for kind in KINDS]
TASKS = [*FREE[:-1], "tracker=busy", "episodes_per_shard=20", "video.chunk=64"]
"""For both runners: tasks small enough that two workers end at about the same time."""


@dataclass(frozen=True)
class Size:
    """What is measured: episodes for memory (few, many), for profiles, and for the runners in how many rounds."""

    few: int
    many: int
    profile: int
    runners: int
    rounds: int


FULL, QUICK = Size(200, 2000, 400, 160, 1), Size(10, 20, 10, 20, 1)


class Bench:
    """Datasets and runs in a folder that is removed afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._runs = folder, 0
        site = folder / "site" / "annotate_parts-0.1.dist-info"
        site.mkdir(parents=True)
        (site / "METADATA").write_text("Metadata-Version: 2.1\nName: annotate-parts\nVersion: 0.1\n")
        (site / "entry_points.txt").write_text("[pixelvla]\nannotate_parts = bench.annotate_parts\n")
        self._env = {
            "PYTHONPATH": os.pathsep.join([str(site.parent), str(Path(__file__).parents[1])]),
            "PIXELVLA_CACHE": str(folder / "cache"),
            "HF_HOME": str(folder / "hf"),
            "OMP_NUM_THREADS": "1",
        }

    def dataset(self, size: tuple[int, int], episodes: int) -> Path:
        recorded = self.folder / f"recorded-{size[0]}"
        if not recorded.exists():
            record(recorded, size)
        folder = self.folder / f"dataset-{size[0]}-{episodes}"
        if not folder.exists():
            repeated(recorded, folder, episodes)
            self.run(folder, [*FREE, "episodes=[0]"])  # fills the cache with the dataset's columns
        return folder

    def run(self, dataset: Path, arguments: list[str], *, watch: bool = False) -> dict[str, Any]:
        """Annotate in a process of its own, into an empty folder."""
        self._runs += 1
        out = self.folder / f"out-{self._runs}"
        given = {"dataset": str(dataset), "out": str(out), "arguments": arguments, "watch": watch}
        found = own_process("bench.annotate_run", json.dumps(given), env=self._env)
        shutil.rmtree(out)
        return found


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(Path(folder))


def memory(at: Bench, size: Size) -> tuple[list[Figure], dict[str, Any]]:
    """Peaks of whole processes."""
    runs = {episodes: at.run(at.dataset(SMALL, episodes), FREE) for episodes in (size.few, size.many)}
    few, many = (runs[episodes]["peak"] for episodes in (size.few, size.many))
    figures = [
        Figure(
            what=f"peak memory at {size.many} episodes to that at {size.few}", value=many / few, unit="x", at_most=1.2
        ),
        Figure(what=f"peak memory at {size.many} episodes", value=many, unit="MiB"),
    ]
    return figures, {str(episodes): found for episodes, found in runs.items()}


def profile(at: Bench, image: tuple[int, int], episodes: int) -> tuple[list[Figure], dict[str, Any]]:
    """Where the time goes at one size of image."""
    found = at.run(at.dataset(image, episodes), FREE, watch=True)
    ours = found["processor"] - found["parts"]["models"]
    called = f"{image[0]} x {image[1]}"
    share = 100 * found["parts"]["decoding"] / ours
    figures = [
        Figure(what=f"processor time in decoding, {called}", value=share, unit="%", at_least=90),
        Figure(
            what=f"time by the clock during which a video is decoded, {called}", value=100 * found["decoding"], unit="%"
        ),
        Figure(
            what=f"of models and writing, while a video is decoded, {called}", value=100 * found["overlap"], unit="%"
        ),
        Figure(what=f"frames, {called}", value=episodes * LENGTH / found["seconds"], unit="/s"),
    ]
    return figures, found


def runners(at: Bench, size: Size) -> tuple[list[Figure], dict[str, Any]]:
    """Two of Ray's workers against one process."""
    dataset = at.dataset(SMALL, size.runners)
    ways = {"local": TASKS, "ray": [*TASKS, "runner=ray", "runner.options.workers=2"]}
    rounds: list[dict[str, list[dict[str, Any]]]] = []
    for number in range(size.rounds):
        order = ("local", "ray", "ray", "local") if number % 2 == 0 else ("ray", "local", "local", "ray")
        rounds.append({way: [] for way in ways})
        for way in order:
            rounds[-1][way].append(at.run(dataset, ways[way]))
    ratios = [
        sum(run["seconds"] for run in each["local"]) / sum(run["seconds"] for run in each["ray"]) for each in rounds
    ]
    what = "2 workers of Ray against one process, on 2 cores"
    figure = Ratio.of(ratios).figure(lambda value: value, what=what, unit="x", at_least=1.6)
    return [figure], {"rounds": rounds}


def measure(size: Size) -> Report:
    with bench() as at:
        parts = {
            "memory": memory(at, size),
            "profile small": profile(at, SMALL, size.profile),
            "profile large": profile(at, LARGE, size.profile),
            "runners": runners(at, size),
        }
    figures = [figure for made, _ in parts.values() for figure in made]
    return Report(figures=figures, details={name: details for name, (_, details) in parts.items()}, notes=[f"{size}"])


def main() -> None:
    args = parser(__doc__).parse_args()
    publish(measure(QUICK if args.quick else FULL), args.json)


if __name__ == "__main__":
    main()
