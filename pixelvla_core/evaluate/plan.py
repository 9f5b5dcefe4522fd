"""What an evaluation is going to do: settings, parts and episodes, checked before a worker starts."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pixelvla_core.checkpoint.load import read_contract, running_recipe, sound
from pixelvla_core.distributions import libraries
from pixelvla_core.errors import UserError, sentence, suggest
from pixelvla_core.evaluate.config import Running
from pixelvla_core.evaluate.fit import check_fit
from pixelvla_core.evaluate.policy import load_run
from pixelvla_core.evaluate.records import Job
from pixelvla_core.evaluate.workers import Built, Setup
from pixelvla_core.files import check_target, sha256
from pixelvla_core.plugins import Registry
from pixelvla_core.recipe import Evaluate, Part, Recipe, configure, to_yaml
from pixelvla_core.recipe.layers import MODEL_PARTS, PARTS

ORACLE = "oracle"
"""The segmenter that is none: the environment's exact mask of what was prompted."""
PROTOCOL = "protocol.json"
LOADING = ("pixelvla_core.checkpoint.load", "pixelvla_core.model.assemble", "peft.tuners.lora")
"""Modules by which ``load_run`` loads any model."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An evaluation that is ready to run.

    Attributes:
        jobs: Every episode, finished ones included.
        world, method, notes: As in ``Results``.
    """

    setup: Setup
    jobs: Sequence[Job]
    workers: int
    world: Mapping[str, Any]
    method: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


def prepare(
    run: Path,
    out: Path,
    name: str,
    registry: Registry,
    options: Mapping[str, Any],
    overrides: Sequence[str] = (),
) -> Plan:
    """Check everything that can be checked before a worker starts: every part that it will use must be installed.

    Raises:
        UserError: an option, part, task or split does not exist, an override is none for a finished model, or the
            checkpoint's actions do not fit the world's.
    """
    check_target(out, "an evaluation", ours=(out / PROTOCOL).is_file())
    checkpoint, manifest = sound(run)
    recipe, switched = running_recipe(checkpoint, registry, overrides)
    settings, running = _settings(recipe.evaluate, options)
    check_device(running.device)
    if settings.env is None:
        known = ", ".join(registry.names("environment")) or "none is installed"
        raise UserError(f"Neither --env nor the run's recipe names an environment. Installed: {known}.")
    environment = _built(registry, "environment", settings.env)
    segmenter = _built(registry, "segmenter", settings.segmenter) if settings.segmenter else None
    tracker = _built(registry, "tracker", settings.tracker or Part("hold"))
    suite = environment[0].build(environment[1])
    check_fit(read_contract(checkpoint), getattr(suite, "contract", {}))
    modules = _modules(recipe, settings, registry)
    setup = Setup(
        policy=functools.partial(load_run, checkpoint, running.device, tuple(overrides)),
        environment=environment,
        segmenter=segmenter,
        tracker=tracker,
        out=out,
        execute=settings.execute,
        slots=running.slots,
        films=running.films,
        step_timeout=settings.step_timeout,
        modules=modules,
    )
    return Plan(
        setup=setup,
        jobs=jobs(settings, suite),
        workers=settings.workers,
        world={"env": _described(registry, "environment", settings.env), "success": "after the last step"},
        method={
            "checkpoint": sha256(checkpoint / "manifest.json"),
            "execute": settings.execute,
            "segmenter": _identified(registry, "segmenter", settings.segmenter) if settings.segmenter else ORACLE,
            "tracker": _identified(registry, "tracker", settings.tracker or Part("hold")),
            **({"switched": switched} if switched else {}),
        },
        notes={
            "name": name,
            "run": str(run),
            "stages": list(manifest.stages),
            "recipe": to_yaml(recipe),
            "machine": _machine(running, suite, [*modules, environment[0].target]),
        },
    )


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or this machine does not have.

    Raises:
        UserError: says which there are.
    """
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        there = "cuda and cpu" if torch.cuda.is_available() else "cpu alone"
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"--device is {name!r}, which cannot be used: {reason}. This machine has {there}.") from error


def jobs(settings: Evaluate, suite: Any) -> list[Job]:
    """Return every episode that the settings ask of a suite, those of one task and split together."""
    tasks = _chosen("task", settings.tasks, suite.tasks)
    splits = _chosen("split", settings.splits, suite.splits)
    return [
        Job(task=task, split=split, prompt=prompt, episode=episode, seed=settings.seed + episode)
        for split in splits
        for task in tasks
        for episode in range(settings.episodes)
        for prompt in settings.prompts
    ]


def _settings(base: Evaluate, options: Mapping[str, Any]) -> tuple[Evaluate, Running]:
    """Lay the given options over the recipe's settings."""
    own = {item.name for item in fields(Running)}
    known = own | {item.name for item in fields(Evaluate)}
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known:
            raise UserError(f"There is no option {key!r}.{suggest(key, known)} Known: {', '.join(sorted(known))}.")
    for key in ("env", "segmenter", "tracker"):
        if isinstance(given.get(key), str):
            given[key] = None if (key, given[key]) == ("segmenter", ORACLE) else Part(given[key])
    try:
        settings = replace(base, **{key: value for key, value in given.items() if key not in own})
        return settings, Running(**{key: value for key, value in given.items() if key in own})
    except ValueError as error:
        raise UserError(sentence(str(error))) from error


def _built(registry: Registry, kind: str, part: Part) -> Built:
    component = registry.get(kind, part.name)
    return component, configure(component, part.options)


def _modules(recipe: Recipe, settings: Evaluate, registry: Registry) -> tuple[str, ...]:
    """What a worker imports to load and run the model.

    The environment's module is left out: a simulator may open a display as it is imported, as MuJoCo does.
    """
    parts = [(PARTS[key], getattr(recipe, key)) for key in MODEL_PARTS]
    parts += [("segmenter", settings.segmenter), ("tracker", settings.tracker)]
    targets = [registry.get(kind, part.name).target for kind, part in parts if part]
    return (*LOADING, *(target.partition(":")[0] for target in targets))


def _described(registry: Registry, kind: str, part: Part) -> dict[str, Any]:
    entry = registry.entry(kind, part.name)
    options = part.options
    return {"name": part.name, "distribution": entry.distribution, "version": entry.version, "options": options}


def _identified(registry: Registry, kind: str, part: Part) -> dict[str, Any]:
    """Describe a part that may have weights of its own, so that results of other weights are never joined.

    Raises:
        UserError: its weights are missing; says how to get them.
    """
    component, options = _built(registry, kind, part)
    built = component.build(options)
    weights: dict[str, Any] = built.identity() if hasattr(built, "identity") else {}
    return _described(registry, kind, part) | ({"weights": weights} if weights else {})


def _chosen(what: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in asked:
        if name not in known:
            raise UserError(
                f"The environment has no {what} {name!r}.{suggest(name, known)} It has: {', '.join(known)}."
            )
    return list(asked or known)


def _machine(running: Running, suite: Any, targets: Iterable[str]) -> dict[str, Any]:
    """What an episode may depend on beside the recipe."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": running.device,
        "environment": dict(getattr(suite, "machine", {})),
        "versions": libraries({"pixelvla_core", *(target.partition(".")[0] for target in targets)}, in_turn=False),
    }
