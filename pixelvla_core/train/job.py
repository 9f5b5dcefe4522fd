"""One stage of a run: freeze, prepare, train, save."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pixelvla_core.checkpoint.find import FOLDER, LAST, checkpoints, step_folder, step_of
from pixelvla_core.checkpoint.save import Header, save
from pixelvla_core.files import point_link
from pixelvla_core.model import freeze
from pixelvla_core.recipe import Recipe, Stage
from pixelvla_core.recipe.schema import BASE_GROUPS
from pixelvla_core.train.cache import Cache, open_cache
from pixelvla_core.train.interrupt import Interrupt
from pixelvla_core.train.loader import Source, batches
from pixelvla_core.train.loop import Interrupted, Loop
from pixelvla_core.train.optim import make_optimizer
from pixelvla_core.train.order import Order
from pixelvla_core.train.progress import Progress
from pixelvla_core.train.stage import Objective, checkpoint_gradients
from pixelvla_core.train.state import Position, optimizer_tensors, restore_optimizer, whole, write_state
from pixelvla_core.train.trackers import scalars

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from pixelvla_core.data.dataset import Dataset
    from pixelvla_core.model.pixelvla import PixelVLA

KEEP = 2
"""Checkpoints that are kept beside those at the ends of stages."""


Sums = tuple[float, float, float]


@dataclass(frozen=True)
class Start:
    """Where a run begins: a position, and the checkpoint it comes from (None at the very beginning)."""

    position: Position
    folder: Path | None = None


@dataclass
class Job:
    """What all stages of a run share."""

    recipe: Recipe
    out: Path
    accelerator: Accelerator
    dataset: Dataset
    model: PixelVLA
    header: Header
    progress: Progress
    inherited: tuple[str, ...] = ()
    """Groups of the base that were trained before this run, or before it was stopped."""

    def ends(self) -> list[int]:
        """The step, over all stages, at which each stage ends."""
        steps = [self.recipe.stages[name].steps for name in self.recipe.run]
        return [sum(steps[: index + 1]) for index in range(len(steps))]

    def before(self, index: int) -> int:
        """Steps of the stages before the one at ``index``."""
        return self.ends()[index] - self.stage(index).steps

    def stage(self, index: int) -> Stage:
        """The stage at an index of ``run``."""
        return self.recipe.stages[self.recipe.run[index]]

    def last(self) -> Path:
        """The newest checkpoint."""
        return (self.out / FOLDER / LAST).resolve()

    def trained(self, index: int) -> list[str]:
        """Groups of the base that were trained up to and with this stage."""
        found = {group for i in range(index + 1) for group in self.stage(i).train}
        return sorted({*self.inherited, *found} & set(BASE_GROUPS))


def run_stage(job: Job, index: int, start: Start | None, interrupt: Interrupt) -> None:
    """Train the stage at ``index``, from its beginning or from where a checkpoint stands."""
    step = start.position.step if start else 0
    name, stage = job.recipe.run[index], job.stage(index)
    job.accelerator.free_memory()  # lets go of the last stage's wrapper, whose hooks would go on reducing gradients
    table = freeze.apply(job.model, stage.train)
    _announce(job, name, stage, table)
    job.model.train()
    checkpoint_gradients(job.model.base, stage.grad_checkpointing)
    accelerator, order = job.accelerator, Order(len(job.dataset), stage.seed, name)
    job.model.to(accelerator.device)
    cache = _cache(job, stage, order, interrupt)
    objective = Objective(job.model, stage)
    prepared, optimizer = accelerator.prepare(objective, make_optimizer(objective, stage))
    bare = accelerator.unwrap_model(prepared)
    if start is not None and start.folder is not None and step:
        restore_optimizer(bare, optimizer.optimizer, start.folder)
    loop = Loop(
        name=name,
        stage=stage,
        objective=prepared,
        optimizer=optimizer,
        accelerator=accelerator,
        order=order,
        interrupt=interrupt,
        report=partial(_report, job, name),
        save=partial(_save, job, index, bare, optimizer.optimizer),
        advance=job.progress.advance,
        step=step,
        sums=start.position.sums if start else (0.0, 0.0, 0.0),
    )
    source = Source(
        data=job.dataset,
        model=job.model,
        stage=stage,
        order=order,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        cache=cache,
    )
    job.progress.start_clock()
    loop.run(batches(source, range(step * stage.grad_accum, stage.steps * stage.grad_accum)))


def _cache(job: Job, stage: Stage, order: Order, interrupt: Interrupt) -> Cache | None:
    """Open the stage's cache; the main process makes it, the others then find it."""
    total = stage.steps * stage.grad_accum * stage.batch_size * job.accelerator.num_processes
    if stage.cache == "none":
        return None
    if total <= order.length:
        job.progress.say(f"Nothing is cached: the stage sees {total} of {order.length} samples, each of them once.")
        return None

    def go_on() -> None:
        if interrupt.asked:
            raise Interrupted

    with job.accelerator.main_process_first():
        return open_cache(job.model, job.recipe, stage, job.dataset, job.progress.say, go_on)


def _announce(job: Job, name: str, stage: Stage, table: list[freeze.Row]) -> None:
    effective = stage.batch_size * stage.grad_accum * job.accelerator.num_processes
    job.progress.say(
        f"Stage {name}: {stage.steps} steps of {effective} samples, lr {stage.lr:g} ({stage.schedule}), "
        f"{stage.precision}, on {job.accelerator.device} x {job.accelerator.num_processes}"
    )
    learning = sum(row.parameters for row in table if row.trained)
    job.progress.say(f"  {learning:,} of {sum(row.parameters for row in table):,} parameters learn")
    for row in table:
        learns = "trains" if row.trained else "frozen"
        job.progress.say(f"  {row.group:<10} {learns}  {row.parameters:>13,} parameters in {row.tensors} tensors")


def _report(job: Job, name: str, step: int, values: dict[str, float]) -> None:
    metrics = job.progress.report(name, step, values)
    if job.recipe.log.trackers:
        job.accelerator.log(scalars(metrics, name), step=job.progress.step)


def _save(job: Job, index: int, bare: Objective, optimizer: torch.optim.Optimizer, step: int, sums: Sums) -> None:
    """Save a checkpoint, at the end of a stage with its optimizer too, so that steps can be added."""
    end = step == job.stage(index).steps
    state = {name: whole(tensor) for name, tensor in bare.model.state_dict().items()}
    moments = optimizer_tensors(bare, optimizer)
    accelerator = job.accelerator
    position = Position(index, step, job.dataset.fingerprint, accelerator.num_processes, sums)
    if accelerator.is_main_process:
        total = job.before(index) + step
        folder = step_folder(job.out, total)
        save(
            folder,
            job.model,
            job.recipe,
            job.header,
            stages=job.recipe.run[: index + end],
            step=total,
            trained=job.trained(index),
            state=state,
            extra=lambda partial: write_state(partial, position, moments),
        )
        point_link(folder.parent / LAST, folder.name)
        _purge(job, total)
    accelerator.wait_for_everyone()


def _purge(job: Job, total: int) -> None:
    """Remove all but the newest checkpoints and those at the ends of stages.

    Those after step ``total`` are damaged and were passed over; they make no sound one old.
    """
    ends = [step_folder(job.out, step) for step in job.ends()]
    passing = [folder for folder in checkpoints(job.out) if folder not in ends and step_of(folder) <= total]
    for folder in passing[KEEP:]:
        shutil.rmtree(folder, ignore_errors=True)
