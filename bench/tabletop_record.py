"""Pictures or video in the recorded dataset, and how fast recording is: ``python -m bench.tabletop_record``.

The same demonstrations are written twice with LeRobot's own writer, once as PNG within parquet and once as video, and
then read back at random. Times are processor milliseconds per frame, because the wall clock depends on what else the
machine does. Peak memory is that of a process which records and does nothing else.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from pixelvla_tabletop import spec
from pixelvla_tabletop.demonstrate import Demonstration, Job, demonstrate
from pixelvla_tabletop.record import IMAGE_KEY, features, masks_row, record

from bench.report import Figure, Report, parser, publish
from bench.timing import own_process, peak_mib, processor_seconds


def write(folder: Path, shown: list[Demonstration], video: bool) -> float:
    """Write the demonstrations; return processor milliseconds per frame."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    described = features(spec.IMAGE_SIZE)
    described[IMAGE_KEY]["dtype"] = "video" if video else "image"
    start = processor_seconds()
    dataset = LeRobotDataset.create(
        "bench/tabletop", spec.FPS, described, root=folder, use_videos=video, video_backend="pyav"
    )
    for one in shown:
        for image, state, action in zip(one.images, one.states, one.actions, strict=True):
            row = {IMAGE_KEY: image, "observation.state": state, "action": action, "task": one.facts["instruction"]}
            dataset.add_frame(row)
        dataset.save_episode()
    dataset.finalize()
    return 1000 * (processor_seconds() - start) / sum(len(one.actions) for one in shown)


def read(folder: Path, count: int) -> float:
    """Read frames at random; return processor milliseconds per frame."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("bench/tabletop", root=folder, video_backend="pyav")
    chosen = np.random.default_rng(0).integers(len(dataset), size=count)
    dataset[0]
    start = processor_seconds()
    for index in chosen:
        dataset[int(index)]
    return 1000 * (processor_seconds() - start) / count


def simulate(episodes: int, noise: float) -> tuple[list[Demonstration], float]:
    """Play demonstrations; return them and the processor milliseconds per frame, masks and their encoding included."""
    tasks = spec.TASKS
    start = processor_seconds()
    shown = [demonstrate(Job(tasks[seed % len(tasks)], "train", None, seed, noise=noise)) for seed in range(episodes)]
    for episode, one in enumerate(shown):
        masks_row(episode, one)
    return shown, 1000 * (processor_seconds() - start) / sum(len(one.actions) for one in shown)


def measure(episodes: int, noise: float) -> Report:
    shown, cost = simulate(episodes, noise)
    figures = [Figure(what="processor time per frame: simulate, draw, mask", value=cost, unit="ms")]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("image", "video"):
            figures += stored(Path(folder) / kind, shown, kind)
    peak = own_process("bench.tabletop_record", "--memory", "--episodes", str(episodes), "--noise", str(noise))
    figures.append(Figure(what="peak memory of the process that writes a recording", value=peak, unit="MiB"))
    return Report(figures=figures, details={"episodes": episodes, "frames": sum(len(one.actions) for one in shown)})


def stored(folder: Path, shown: list[Demonstration], kind: str) -> list[Figure]:
    """Write and read the demonstrations one way."""
    written = write(folder, shown, kind == "video")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [
        Figure(what=f"processor time per frame: write, stored as {kind}", value=written, unit="ms"),
        Figure(what=f"processor time per frame: read at random, stored as {kind}", value=read(folder, 200), unit="ms"),
        Figure(what=f"size of an episode, stored as {kind}", value=size / len(shown) / 1000, unit="kB"),
    ]


def memory(episodes: int, noise: float) -> float:
    """Record as the command does; return this process's peak MiB."""
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "demos", episodes, workers=1, noise=noise)
    return peak_mib()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--episodes", type=int, default=24)
    arguments.add_argument("--noise", type=float, default=0.3)
    arguments.add_argument("--memory", action="store_true", help="record in this process; print its peak MiB")
    args = arguments.parse_args()
    episodes = 2 if args.quick else args.episodes
    if args.memory:
        print(json.dumps(memory(episodes, args.noise)))
    else:
        publish(measure(episodes, args.noise), args.json)


if __name__ == "__main__":
    main()
