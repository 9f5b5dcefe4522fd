"""How good annotations are, against the simulator's exact masks: ``python -m bench.annotate_quality``.

Demonstrations of the tabletop, of all tasks, a quarter of each split (the training's and three held-out ones), with
seeds on which nothing was tuned; they are annotated with models that know the truth, which shows what the pipeline
itself loses, and with the models that need no download, with each light tracker.

Overlap is the mean over all frames of kept episodes on which the simulator sees the target; where the annotation has no
mask it is 0. "Another object": the first mask does not even touch the target.

Targets, with the models that know the truth: every episode kept, every mask exact. Of the others none is promised, but
that points and lines never leave their masks.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pixelvla_tabletop import spec
from pixelvla_tabletop.demonstrate import Demonstration, Job, disturbed
from pixelvla_tabletop.env import TabletopEnv
from pixelvla_tabletop.expert import Expert

from bench import annotate_exact
from bench.annotate_exact import Truth, save_truth
from bench.report import Figure, Report, parser, publish
from bench.tabletop_record import write
from pixelvla_core.annotate.run import annotate
from pixelvla_core.annotations.derive import crossed
from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.schema import Annotation
from pixelvla_core.evaluate.statistics import overlap
from pixelvla_core.plugins import GROUP, PluginManager

SPLITS = ("train", "visual_matching", "unseen_objects", "variants")
SEED, NOISE, EPISODES = 300_000, 0.3, 96
KINDS = {"pick": "objects", "move_near": "objects", "open_drawer": "drawers", "close_drawer": "drawers"}
"""Task -> what is acted on."""
TRACKERS = ("follow", "flow", "hold")
"""The first one is the default."""
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")


@dataclass
class Quality:
    """What became of one way to annotate.

    Attributes:
        kept: episode -> whether it was kept.
        frames: episode -> overlap on each frame on which the target is seen, in order.
        outside: points and lines that leave their mask.
        reasons: why episodes were discarded.
    """

    kept: dict[int, bool]
    frames: dict[int, list[float]] = field(default_factory=dict)
    outside: int = 0
    reasons: dict[int, str] = field(default_factory=dict)

    def mean(self, episodes: Sequence[int]) -> float:
        """Overlap on all frames of some episodes."""
        return float(np.mean([value for episode in episodes for value in self.frames.get(episode, ())]))

    def first(self, episodes: Sequence[int]) -> float:
        """Overlap on the first frames of some episodes."""
        return float(np.mean([self.frames[episode][0] for episode in episodes if episode in self.frames]))


def play(job: Job) -> tuple[Demonstration, Truth] | None:
    """Play one disturbed demonstration; None if it fails, or if the target cannot be seen at first."""
    env = TabletopEnv(job.task, job.split, job.axis, job.image_size)
    observation, info = env.reset(seed=job.seed)
    expert, rng = Expert(env), np.random.default_rng([job.seed, 7])
    gripper = next(number for number, name in env.names().items() if name == "gripper")
    rows, done, success = [], False, False
    while not done:
        action = expert.act()
        rows.append((observation["image"], observation["state"], action, env.segmentation()))
        observation, _, success, truncated, _ = env.step(disturbed(action, job.noise, rng))
        done = success or truncated
    images, states, actions, things = (np.stack(column) for column in zip(*rows, strict=True))
    targets, grippers = things == env.target_id, things == gripper
    env.close()
    if not (success and targets[0].any()):
        return None
    shown = Demonstration(job, info, success, images, states, actions, targets)
    return shown, Truth(str(info["instruction"]), str(info["target"]), images, targets, grippers)


def demonstrations(count: int) -> Iterator[tuple[Demonstration, Truth]]:
    """Yield demonstrations of each task and split in turn."""
    found, seed = 0, SEED
    while found < count:
        task, split = spec.TASKS[found % len(spec.TASKS)], SPLITS[found // len(spec.TASKS) % len(SPLITS)]
        made = play(Job(task, split, None, seed, noise=NOISE))
        seed += 1
        if made is not None:
            found += 1
            yield made


def judge(folder: Path, truths: Sequence[Truth], cache: Path) -> Quality:
    """Compare a sidecar with the truth."""
    notes, sidecar = read_episodes(folder), Sidecar(folder, cache=cache)
    quality = Quality({note.episode: note.kept for note in notes})
    quality.reasons = {note.episode: note.reason for note in notes if not note.kept}
    for episode in (episode for episode, kept in quality.kept.items() if kept):
        values = []
        for frame, seen in enumerate(truths[episode].targets):
            (row,) = sidecar.find(episode, frame)
            mask = np.zeros_like(seen) if row.mask is None else row.mask.decode()
            quality.outside += outside(row, mask)
            if seen.any():
                values.append(overlap(mask, seen))
        quality.frames[episode] = values
    return quality


def outside(row: Annotation, mask: np.ndarray) -> int:
    """How many points and lines of a row leave its mask, bool[H, W]."""
    lines = [line.vertices for line in row.lines] + [((point.x, point.y),) * 2 for point in row.points]
    return sum(not _on(vertices, mask) for vertices in lines)


def _on(vertices: Sequence[tuple[float, float]], mask: np.ndarray) -> bool:
    height, width = mask.shape
    pixels = [np.array([int(y * height), int(x * width)]) for x, y in vertices]
    return all(mask[tuple(crossed(start, end).T)].all() for start, end in pairwise(pixels))


def measure(count: int) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PIXELVLA_CACHE"] = str(folder / "cache")
        shown, truths = map(list, zip(*demonstrations(count), strict=True))
        write(folder / "demonstrations", shown, False)
        save_truth(folder / "truth.npz", truths)
        registry = PluginManager([*entry_points(group=GROUP), annotate_exact]).registry
        exact = [word for kind in MODELS for word in _exact(kind, folder / "truth.npz")]
        ways = {"exact": exact, **{tracker: [f"tracker={tracker}"] for tracker in TRACKERS}}
        found = {}
        for way, words in ways.items():
            out = annotate(str(folder / "demonstrations"), folder / way, ["profile=tabletop", *words], registry)
            found[way] = judge(out, truths, folder / "cache")
    jobs = [one.job for one in shown]
    details = {way: described(quality, jobs) for way, quality in found.items()}
    return Report(figures=[*exact_figures(found), *light_figures(found, jobs)], details=details)


def _exact(kind: str, truth: Path) -> list[str]:
    return [f"{kind}.name=exact", f"{kind}.options.truth={truth}"]


def exact_figures(found: dict[str, Quality]) -> list[Figure]:
    """What the pipeline itself loses."""
    exact = found["exact"]
    kept = 100 * float(np.mean(list(exact.kept.values())))
    lowest = min((value for values in exact.frames.values() for value in values), default=0.0)
    beyond = sum(quality.outside for quality in found.values())
    return [
        Figure(what="models that know the truth: episodes kept", value=kept, unit="%", at_least=100),
        Figure(what="models that know the truth: lowest overlap on a frame", value=lowest, unit="IoU", at_least=1),
        Figure(what="points and lines that leave their mask", value=beyond, unit="", at_most=0),
    ]


def light_figures(found: dict[str, Quality], jobs: Sequence[Job]) -> list[Figure]:
    """How good annotations without any download are."""
    default, figures = found[TRACKERS[0]], []
    kept = [episode for episode, is_kept in default.kept.items() if is_kept]
    wrong = 100 * float(np.mean([default.frames[episode][0] == 0 for episode in kept]))
    figures.append(Figure(what="defaults: episodes kept", value=100 * len(kept) / len(jobs), unit="%"))
    figures.append(Figure(what="defaults: another object", value=wrong, unit="%"))
    for kind in dict.fromkeys(KINDS.values()):
        of_kind = [episode for episode in kept if KINDS[jobs[episode].task] == kind]
        figures.append(Figure(what=f"defaults: {kind}, first frame", value=default.first(of_kind), unit="IoU"))
    for tracker in TRACKERS:
        quality = found[tracker]
        kept = [episode for episode, is_kept in quality.kept.items() if is_kept]
        figures.append(Figure(what=f"defaults with {tracker}: all frames", value=quality.mean(kept), unit="IoU"))
        for kind in dict.fromkeys(KINDS.values()):
            of_kind = [episode for episode in kept if KINDS[jobs[episode].task] == kind]
            figures.append(
                Figure(what=f"defaults with {tracker}: {kind}, all frames", value=quality.mean(of_kind), unit="IoU")
            )
    return figures


def described(quality: Quality, jobs: Sequence[Job]) -> dict[str, Any]:
    """Of each task and split: episodes, how many were kept, overlap on first and on all frames; and the discards."""
    groups = defaultdict(list)
    for episode, job in enumerate(jobs):
        groups[f"{job.task}, {job.split}"].append(episode)
    told: dict[str, Any] = {}
    for name, episodes in sorted(groups.items()):
        kept = [episode for episode in episodes if quality.kept[episode]]
        overlaps = [round(quality.first(kept), 3), round(quality.mean(kept), 3)] if kept else None
        told[name] = {"episodes": len(episodes), "kept": len(kept), "first and all": overlaps}
    return told | {"discarded": {str(episode): reason for episode, reason in quality.reasons.items()}}


def main() -> None:
    args = parser(__doc__).parse_args()
    publish(measure(16 if args.quick else EPISODES), args.json)


if __name__ == "__main__":
    main()
