"""The commands of the demonstration, each of them one that a user can type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .methods import Method, methods_of

DEMONSTRATIONS, ANNOTATIONS, EXACT, CACHE = "demonstrations", "annotations", "exact", "cache"
"""Folders of a demonstration: the recording, what the pipeline says of it, what the simulator knows, and a cache."""

OBJECT_TASKS = ("pick", "move_near")
"""Only these have a version with objects that training never showed."""


@dataclass(frozen=True)
class Size:
    """How much is recorded, learned and played.

    Attributes:
        demonstrations: to record.
        episodes: for each cell of the table. overlay_episodes: the same for the rows that nothing is claimed of.
        workers: processes that simulate, and trainings side by side.
        seed: of the first scene.
        base: which minis are tuned.
        steps: of each stage, or None for what the recipes say.
    """

    demonstrations: int
    episodes: int
    overlay_episodes: int
    workers: int
    seed: int
    base: tuple[str, ...] = ("openvla",)
    steps: int | None = None


@dataclass(frozen=True)
class Step:
    """One command, and what it is for."""

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """Steps of which none needs another one; those of a later phase need them."""

    title: str
    steps: tuple[Step, ...]


def plan(out: Path, size: Size) -> list[Phase]:
    """Every command, in order."""
    demos, notes, exact = out / DEMONSTRATIONS, out / ANNOTATIONS, out / EXACT
    cache = f"recording.options.cache={out / CACHE}"
    oracle = ("annotations", "oracle", f"{demos}.masks.jsonl", str(demos), str(exact))
    methods = methods_of(size.base)
    tuned = [method for method in methods if method.recipe]
    return [
        _alone("Record demonstrations", _record(demos, size)),
        _alone("Annotate them", ("annotate", str(demos), "--out", str(notes), "profile=tabletop", cache)),
        _alone("Write down what the simulator knows", oracle),
        _alone("Compare both", ("annotations", "compare", str(notes), str(exact))),
        *(_alone(f"Make {method.title}", _wrap(out, method)) for method in methods if not method.recipe),
        Phase("Tune, side by side", tuple(Step(method.title, _train(out, method, size)) for method in _queue(tuned))),
        *(
            _alone(f"Evaluate {method.title} on {title}", _evaluate(out, method, scope, size))
            for method in methods
            for title, scope in _scopes(size.episodes if method.claimed else size.overlay_episodes)
        ),
    ]


def _queue(tuned: list[Method]) -> list[Method]:
    """In which order trainings start.

    What is claimed comes first, the longest of it before the others, so that none is left to run alone in the end. What
    is left then finds caches that the first ones made.
    """
    return sorted(reversed(tuned), key=lambda method: not method.claimed)


def _alone(title: str, command: tuple[str, ...]) -> Phase:
    return Phase(title, (Step(title, command),))


def _record(demos: Path, size: Size) -> tuple[str, ...]:
    given = {"--episodes": size.demonstrations, "--noise": 0.4, "--workers": size.workers, "--seed": size.seed}
    # Objects are twice as many as drawers: each of the four tasks then has about as much to learn from.
    tasks = (*OBJECT_TASKS, *OBJECT_TASKS, "open_drawer", "close_drawer")
    return ("record", str(demos), *_options(given), *(word for task in tasks for word in ("--task", task)))


def _wrap(out: Path, method: Method) -> tuple[str, ...]:
    layers = ("head/native", "evaluate/tabletop")
    return (
        "wrap",
        "--base",
        method.base,
        "--weights",
        "mini",
        "--out",
        str(out / method.name),
        *layers,
        *method.options,
    )


def _train(out: Path, method: Method, size: Size) -> tuple[str, ...]:
    given = {"root": out / DEMONSTRATIONS, "annotations": out / ANNOTATIONS, "cache": out / CACHE}
    data = tuple(f"data.options.{key}={path}" for key, path in given.items())
    return ("train", str(method.recipe), *data, *_shortened(method, size), "--out", str(out / method.name), "--resume")


def _shortened(method: Method, size: Size) -> tuple[str, ...]:
    if size.steps is None:
        return ()
    keys = {"steps": size.steps, "warmup_steps": 0, "save_every": size.steps}
    return tuple(f"stages.{stage}.{key}={value}" for stage in method.stages for key, value in keys.items())


def _scopes(episodes: int) -> list[tuple[str, tuple[str, ...]]]:
    """The splits of the table, so that each cell has ``episodes`` episodes over its tasks."""
    quarter, half = max(1, round(episodes / 4)), max(1, round(episodes / 2))
    known = ("--split", "visual_matching", "--split", "variants", "--episodes", str(quarter))
    tasks = tuple(word for task in OBJECT_TASKS for word in ("--task", task))
    unseen = ("--split", "unseen_objects", *tasks, "--episodes", str(half))
    return [("visual_matching and variants", known), ("unseen_objects", unseen)]


def _evaluate(out: Path, method: Method, scope: Sequence[str], size: Size) -> tuple[str, ...]:
    given: dict[str, Any] = {"--name": method.title, "--workers": size.workers, "--seed": size.seed}
    if method.execute is not None:
        given["--execute"] = method.execute
    if method.prompts != ("none",):
        given |= {"--segmenter": "grabcut", "--tracker": "hold", "--films": 1}
    prompts = tuple(word for prompt in method.prompts for word in ("--prompts", prompt))
    return ("eval", str(out / method.name), *scope, *prompts, *_options(given))


def _options(given: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for pair in given.items() for word in pair)
