"""How well segmenters and trackers do against the simulator's exact masks: ``python -m bench.segmenters``.

Segmenters get the prompts of the oracle user on first images of held-out scenes, objects and drawers apart, because a
point on a drawer of several colours leaves open what is meant. Trackers start from the exact mask and see every image
of expert episodes; "moved" counts only images on which the target's centre is more than six pixels from where it began.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from pixelvla_tabletop.env import TabletopEnv
from pixelvla_tabletop.expert import Expert

from bench.report import Figure, Report, parser, publish
from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.statistics import overlap
from pixelvla_core.plugins import PluginManager

SPLITS = ("visual_matching", "unseen_objects", "variants")
KINDS = ("point", "line", "box", "point+box")
SEED = 50_000
"""Of the first scene; nothing is trained or tuned on these."""
MOVED = 6.0
SLOWEST_MS = 15.0

Row = dict[str, str | float | int]
Frames = list[tuple[np.ndarray, np.ndarray]]


def first_images(tasks: tuple[str, ...], count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and exact masks of scenes, splits and tasks in turn."""
    found, seed = 0, SEED
    while found < count:
        env = TabletopEnv(tasks[seed % len(tasks)], SPLITS[seed % len(SPLITS)])
        observation, _ = env.reset(seed=seed)
        mask = env.target_mask()
        env.close()
        seed += 1
        if mask.any():
            found += 1
            yield observation["image"], mask


def expert_episode(task: str, split: str, seed: int) -> Frames:
    """Return every image of an expert's episode with the exact mask."""
    env = TabletopEnv(task, split)
    observation, _ = env.reset(seed=seed)
    frames, expert, done = [(observation["image"], env.target_mask())], Expert(env), False
    while not done:
        observation, _, terminated, truncated, _ = env.step(expert.act())
        frames.append((observation["image"], env.target_mask()))
        done = terminated or truncated
    env.close()
    return frames


def usable(kind: str) -> dict[str, Callable[[], Any]]:
    """Return what makes each installed part of a kind; without those that miss weights or a package."""
    registry, found = PluginManager.load().registry, {}
    for name in registry.names(kind):
        component = registry.get(kind, name)
        make = functools.partial(component.build, component.load_config()())
        with suppress(UserError):
            make()
            found[name] = make
    return found


def segmenters(count: int) -> list[Row]:
    """Measure every segmenter that can be used here."""
    rows = []
    for target, tasks in (("object", ("pick", "move_near")), ("drawer", ("open_drawer", "close_drawer"))):
        scenes = list(first_images(tasks, count))
        for name, make in usable("segmenter").items():
            rows += [_segment(make(), name, target, kind, scenes) for kind in KINDS]
    return rows


def _segment(part, name: str, target: str, kind: str, scenes: list[tuple[np.ndarray, np.ndarray]]) -> Row:
    overlaps, milliseconds = [], []
    for number, (image, mask) in enumerate(scenes):
        rng = np.random.default_rng(number)
        prompts = tuple(derive_prompt(mask, single, rng) for single in kind.split("+"))
        start = time.process_time()
        found = part.segment(image, prompts)
        milliseconds.append(1000 * (time.process_time() - start))
        overlaps.append(overlap(found, mask))
    return {
        "segmenter": name,
        "target": target,
        "prompt": kind,
        "scenes": len(scenes),
        "mean IoU": round(float(np.mean(overlaps)), 3),
        "below 0.5": round(float(np.mean(np.array(overlaps) < 0.5)), 3),
        "ms (median)": round(float(np.median(milliseconds)), 1),
    }


def trackers(episodes: int) -> list[Row]:
    """Measure every tracker that can be used here on episodes of each task and split."""
    usables = usable("tracker")
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for task in ("pick", "move_near", "open_drawer", "close_drawer"):
        for number in range(episodes):
            frames = expert_episode(task, SPLITS[number % len(SPLITS)], SEED + number)
            for name, make in usables.items() if frames[0][1].any() else ():
                found[name, task] += _follow(make(), frames)
    return [_tracker_row(name, task, measured) for (name, task), measured in sorted(found.items())]


def _follow(tracker, frames: Frames) -> list[tuple[float, float, float]]:
    """Return for each image the overlap, how far the target's centre has moved, and the milliseconds."""
    tracker.start(*frames[0])
    start_centre, found = np.argwhere(frames[0][1]).mean(0), []
    for image, mask in frames[1:]:
        start = time.process_time()
        mine = tracker.step(image)
        taken = 1000 * (time.process_time() - start)
        moved = float(np.linalg.norm(np.argwhere(mask).mean(0) - start_centre)) if mask.any() else 0.0
        found.append((overlap(mine, mask), moved, taken))
    return found


def _tracker_row(name: str, task: str, measured: list[tuple[float, float, float]]) -> Row:
    overlaps, moved, milliseconds = np.array(measured).T
    return {
        "tracker": name,
        "task": task,
        "images": len(overlaps),
        "mean IoU": round(float(overlaps.mean()), 3),
        "IoU moved": round(float(overlaps[moved > MOVED].mean()), 3),
        "ms (median)": round(float(np.median(milliseconds)), 1),
    }


def table(rows: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(quick: bool) -> Report:
    """Measure everything; the details hold both tables."""
    cuts, follows = segmenters(2 if quick else 100), trackers(1 if quick else 12)
    figures = [Figure(what=_cut(row), value=float(row["mean IoU"]), unit="IoU") for row in cuts]
    figures += [Figure(what=_name(row), value=float(row["mean IoU"]), unit="IoU") for row in follows]
    figures.append(
        Figure(
            what="slowest median time of a segmenter",
            value=max(float(row["ms (median)"]) for row in cuts),
            unit="ms",
            at_most=SLOWEST_MS,
        )
    )
    return Report(figures=figures, details={"segmenters": cuts, "trackers": follows})


def _cut(row: Row) -> str:
    return f"segmenter {row['segmenter']}, {row['prompt']} on {row['target']}"


def _name(row: Row) -> str:
    return f"tracker {row['tracker']}, task {row['task']}"


def main() -> None:
    arguments = parser(__doc__).parse_args()
    report = measure(arguments.quick)
    publish(report, arguments.json)
    if not arguments.json:
        print("\n" + "\n\n".join(table(rows) for rows in report.details.values()))


if __name__ == "__main__":
    main()
