"""``train``: the stages of a recipe, one after the other, from the start or from the newest sound checkpoint."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from pixelvla_core.checkpoint.begin import Beginning
from pixelvla_core.checkpoint.find import FOLDER, checkpoints, newest
from pixelvla_core.checkpoint.load import load_delta, read_contract
from pixelvla_core.checkpoint.manifest import MANIFEST, RECIPE, read_manifest
from pixelvla_core.checkpoint.save import describe
from pixelvla_core.data.build import build_dataset
from pixelvla_core.data.states import state_statistics
from pixelvla_core.errors import RecipeError, UserError
from pixelvla_core.files import LOCK, check_target, full_disk_is_user_error, locked, remove_partials
from pixelvla_core.model.assemble import assemble
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.recipe import Recipe, load_recipe, save_recipe
from pixelvla_core.seam.backbone import StateBackbone
from pixelvla_core.train.changes import check_unchanged
from pixelvla_core.train.interrupt import Interrupt
from pixelvla_core.train.job import Job, Start, run_stage
from pixelvla_core.train.loop import Interrupted
from pixelvla_core.train.progress import Progress
from pixelvla_core.train.state import Position, read_position
from pixelvla_core.train.trackers import check_trackers

if TYPE_CHECKING:
    from pixelvla_core.data.dataset import Dataset
    from pixelvla_core.model.pixelvla import PixelVLA


def train(recipe: Recipe, out: Path, resume: bool = False, registry: Registry | None = None) -> Path:
    """Run the stages of a recipe and return the last checkpoint.

    Args:
        recipe: Composed and validated.
        out: The folder of the run.
        resume: Go on from the newest sound checkpoint in ``out``; from the start if there is none yet.
        registry: Where parts are looked up; by default every installed one.

    Raises:
        UserError: the recipe does not fit, the folder is in use or no run, the disk is full, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was saved and a line said how to go on.
    """
    out = Path(out)
    check_complete(recipe)
    check_trackers(recipe.log.trackers)
    if checkpoints(out) and not resume:
        raise UserError(
            f"{out} already holds a run with checkpoints. Add --resume to go on with it, or give another --out."
        )
    check_target(out, "a run", ours=_is_run(out))
    registry = PluginManager.load().registry if registry is None else registry
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(log_with=recipe.log.trackers or None, project_dir=str(out), kwargs_handlers=[unused])
    kept = f"Checkpoints in {out / FOLDER} are whole."
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked(out))
        stack.enter_context(full_disk_is_user_error(out, kept, "run the same command again with --resume"))
        return _train(_absolute(recipe), out, registry, accelerator)


def _train(recipe: Recipe, out: Path, registry: Registry, accelerator: Accelerator) -> Path:
    assert recipe.data is not None  # by check_complete
    dataset = build_dataset(recipe.data.name, recipe.data.options, registry)
    _check_rule(recipe, dataset)
    start = _start(recipe, out, dataset.fingerprint, accelerator.num_processes, registry)
    if accelerator.is_main_process:
        remove_partials(out / FOLDER)
        save_recipe(recipe, out / RECIPE)
    accelerator.wait_for_everyone()
    model, inherited, said = _model(recipe, dataset, start, registry)
    done = sum(recipe.stages[name].steps for name in recipe.run[: start.position.stage]) + start.position.step
    total = sum(recipe.stages[name].steps for name in recipe.run)
    progress = Progress(out if accelerator.is_main_process else None, total, done)
    header = describe(model, recipe, registry)
    job = Job(recipe, out, accelerator, dataset, model, header, progress, inherited)
    if recipe.log.trackers:
        accelerator.init_trackers("logs")
    if start.folder is not None:
        progress.say(f"Going on from {start.folder}.")
    elif said:
        progress.say(" ".join(said))
    return _run_stages(job, start)


def _run_stages(job: Job, start: Start) -> Path:
    with Interrupt() as interrupt, job.progress:
        try:
            for index in range(start.position.stage, len(job.recipe.run)):
                run_stage(job, index, start if index == start.position.stage else None, interrupt)
        except Interrupted:
            if job.accelerator.is_main_process:
                saved = f"saved in {job.last()}" if checkpoints(job.out) else "there was nothing to save yet"
                print(f"Stopped; {saved}. Go on with: {resume_command(job.out)}", file=sys.stderr)
            raise
        finally:
            job.accelerator.end_training()
    return job.last()


def _is_run(out: Path) -> bool:
    """Whether a folder is a run, perhaps one that was stopped before its first checkpoint."""
    begun = (out / LOCK).is_file() and (out / RECIPE).is_file() and not (out / MANIFEST).exists()
    return begun or bool(checkpoints(out))


def check_complete(recipe: Recipe) -> None:
    """Refuse a recipe that cannot train.

    Raises:
        RecipeError: names what misses.
    """
    missing = [name for name in ("backbone", "data", "run") if not getattr(recipe, name)]
    if missing:
        raise RecipeError(
            f"The recipe has no {', '.join(missing)}, so there is nothing to train. Add the layers that give them; "
            "`pixelvla recipe list` shows what there is."
        )


def resume_command(out: Path) -> str:
    """What to type to go on with a run."""
    return f"pixelvla train --out {out} --resume"


def _absolute(recipe: Recipe) -> Recipe:
    """Name local folders so that they are found from any working directory."""
    if recipe.start is not None:
        recipe = replace(recipe, start=str(Path(recipe.start).resolve()))
    assert recipe.backbone is not None  # by check_complete
    weights = recipe.backbone.weights
    if weights is None or not Path(weights).is_dir():
        return recipe
    return replace(recipe, backbone=replace(recipe.backbone, weights=str(Path(weights).resolve())))


def _start(recipe: Recipe, out: Path, data: str, world: int, registry: Registry) -> Start:
    fresh = Start(Position(stage=0, step=0, data=data, world=world))
    if not checkpoints(out):
        return fresh
    folder = newest(out, for_training=True)
    position = read_position(folder)
    check_unchanged(load_recipe(folder / RECIPE, registry=registry), recipe, position, fresh.position, folder)
    if position.stage < len(recipe.run) and position.step >= recipe.stages[recipe.run[position.stage]].steps:
        position = replace(fresh.position, stage=position.stage + 1)
    return Start(position, folder)


def _check_rule(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse data that normalise by another rule than the recipe says, for the data's is the one that counts."""
    wanted, found = recipe.action.normalization, dataset.contract().rule
    if wanted != found:
        raise RecipeError(
            f"action.normalization is {wanted!r}, but the data normalise actions by {found!r}. Say the same in both: "
            f"give action.normalization={found}, or have the data follow it (layers such as data/lerobot do so by "
            "`rule: ${action.normalization}` in data.options)."
        )


def _model(
    recipe: Recipe, dataset: Dataset, start: Start, registry: Registry
) -> tuple[PixelVLA, tuple[str, ...], list[str]]:
    """The model as the run begins or goes on, the groups of its base that were trained before, and what to tell."""
    if start.folder is not None:
        model = assemble(recipe, contract=read_contract(start.folder), registry=registry)
        manifest = read_manifest(start.folder)
        load_delta(model, start.folder, manifest)
        return model, manifest.trained, []
    if recipe.start is None:
        model = assemble(recipe, contract=dataset.contract(), registry=registry)
        return model, (), _take_states(model, dataset)
    beginning = Beginning.of(recipe)
    contract, said = beginning.contract(dataset.contract())
    model = assemble(recipe, contract=contract, registry=registry)
    said = [f"Starting with the weights of {recipe.start}.", *said]
    if not beginning.reads_states_as_they_are:
        said += _take_states(model, dataset)
    return model, beginning.load(model, registry), said


def _take_states(model: PixelVLA, dataset: Dataset) -> list[str]:
    """Give the data's statistics of states to a base that lacks them, and return what to tell of it."""
    backbone, contract = model.backbone, model.contract
    if contract is None or not isinstance(backbone, StateBackbone) or not backbone.lacks_states:
        return []
    found = state_statistics(dataset)
    if found is None:
        return []
    backbone.take_states(found)
    model.contract = replace(contract, state=found)
    return [f"The base has no statistics of the robot's state, so it reads its {found.dim} values by the data's."]
