"""An annotation from beginning to end: the recipe, the steps in order, the sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pixelvla_core.annotate.pictures import contact_sheet
from pixelvla_core.annotate.pipeline import Pipeline, Runner
from pixelvla_core.annotate.progress import Progress, print_summary
from pixelvla_core.annotate.steps.closing import Closing
from pixelvla_core.annotate.work import Job
from pixelvla_core.annotations.episodes import EpisodeNote
from pixelvla_core.annotations.reader import read_manifest
from pixelvla_core.annotations.schema import MANIFEST, Header
from pixelvla_core.annotations.writer import ROWS
from pixelvla_core.errors import DataError, RecipeError
from pixelvla_core.files import check_outside, check_target, full_disk_is_user_error, locked, remove_partials
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe import Annotate, compose, configure, save_recipe, split_arguments
from pixelvla_core.recipe.layers import PARTS

_SECTION = "annotate"
_DEFAULT = "annotate/default"
"""The layer that is taken where none is given."""
RECIPE = "recipe.yaml"


def annotate(dataset: str, out: Path, arguments: Sequence[str] = (), registry: Registry | None = None) -> Path:
    """Annotate a dataset; a second call goes on where an interrupted one stopped.

    Args:
        dataset: a LeRobotDataset's folder, or its id on the Hub.
        out: the sidecar's folder.
        arguments: names of layers and ``key=value`` of the section ``annotate``; without layers, annotate/default.
        registry: where parts are looked up; by default every installed one.

    Returns:
        The sidecar's folder.

    Raises:
        UserError: the recipe, the dataset or a model is not as it must be; nothing is lost.
    """
    out = Path(out)
    ours = (out / RECIPE).is_file() or (out / MANIFEST).is_file()
    check_target(out, "a sidecar", ours=ours)
    check_outside(out, dataset)
    layers, overrides = split_arguments(arguments)
    registry = registry or PluginManager.load().registry
    recipe = compose(layers or [_DEFAULT], [_within(each) for each in overrides], registry=registry, parts=_PARTS)
    if recipe.annotate is None:
        raise RecipeError(f"The layers {', '.join(layers)} leave no section annotate. Leave out annotate=null.")
    pipeline = Pipeline(Job(recipe.annotate, dataset, out), registry)
    header = pipeline.work.header  # asks every part for its weights, before any work
    if (out / MANIFEST).is_file():
        return _finished(header, out)
    kept = "Finished tasks stay."
    with locked(out), full_disk_is_user_error(out, kept, "run the command again"):
        steps = pipeline.work.workspace.steps
        for folder in (out, out / ROWS, steps, *steps.glob("*")):
            remove_partials(folder)
        save_recipe(recipe, out / RECIPE)
        run(pipeline, _runner(recipe.annotate, registry))
    return out


def run(pipeline: Pipeline, runner: Runner) -> None:
    """Do what is still to do, step by step, and finish the sidecar."""
    with Progress() as progress:
        progress.say(f"Gripper: {cast(Closing, pipeline.steps[Closing.name]).signal.report}")
        for name, step in pipeline.steps.items():
            keys, missing = list(step.tasks()), pipeline.missing(name)
            progress.start(step.title, step.unit, len(keys), len(keys) - len(missing))
            runner.run(pipeline, name, missing, lambda key, tally: progress.done(tally))
            progress.end()
    masks = pipeline.work.workspace.read_all("masks", pipeline.steps["masks"].tasks())
    notes = [EpisodeNote(**row) for row in masks]
    contact_sheet(pipeline.work, notes, pipeline.steps["grippers"].tasks())
    pipeline.steps["masks"].writer().finish(episodes=notes)  # type: ignore[attr-defined]
    print_summary(notes, pipeline.work.job, progress.overall())


_PARTS = tuple(path for path in PARTS if path.startswith(f"{_SECTION}."))


def _within(override: str) -> str:
    """Put the section's name before a key of it."""
    return override if override.startswith(f"{_SECTION}.") else f"{_SECTION}.{override}"


def _runner(recipe: Annotate, registry: Registry) -> Runner:
    component = registry.get("runner", recipe.runner.name)
    return cast(Runner, component.build(configure(component, recipe.runner.options, "annotate.runner.options")))


def _finished(header: Header, out: Path) -> Path:
    """Say so where the sidecar is finished already; refuse to replace one that something else made."""
    manifest = read_manifest(out)
    if changed := sorted(key for key, value in header.to_json().items() if manifest.get(key) != value):
        raise DataError(
            f"{out} holds a finished sidecar made with other settings ({', '.join(changed)} differ). Give another "
            "--out, or remove the folder, and what was decided in a review with it."
        )
    print(f"{out} is finished. `pixelvla annotations stats {out}` says what is in it.")
    return out
