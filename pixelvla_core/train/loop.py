"""The optimizer steps of one stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pixelvla_core.errors import UserError
from pixelvla_core.train.optim import learning_rate, set_learning_rate
from pixelvla_core.train.order import Order, Slot
from pixelvla_core.train.state import whole

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pixelvla_core.recipe import Stage
    from pixelvla_core.train.interrupt import Interrupt
    from pixelvla_core.train.loader import Item


ASK_EVERY = 10
"""Steps between questions to all processes whether to stop; each makes an accelerator wait."""


class Interrupted(KeyboardInterrupt):
    """The user (or a scheduler) stopped the run; a checkpoint was saved.

    Attributes:
        told: Whoever catches this need not say that the run was stopped.
    """

    told = True


@dataclass
class Loop:
    """One stage in motion.

    Attributes:
        objective: The stage's loss, as Accelerate prepared it.
        report: Called with (step, values) every ``log_every`` steps. save: called with the steps done and
            ``sums``.
        advance: Called after every step with the samples it took.
        step: Optimizer steps done.
        sums: Of the losses and gradient norms since the last report, and their number.
    """

    name: str
    stage: Stage
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    order: Order
    interrupt: Interrupt
    report: Callable[[int, dict[str, float]], None]
    save: Callable[[int, tuple[float, float, float]], None]
    advance: Callable[[int], None]
    step: int = 0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _seen: list[tuple[int, Tensor]] = field(default_factory=list)

    def run(self, items: Iterator[Item]) -> None:
        """Work through the stage.

        Raises:
            Interrupted: after the step in which a signal came; its checkpoint is saved.
            UserError: the loss or its gradient is not finite; nothing of it is saved.
        """
        learning = [p for p in self.objective.parameters() if p.requires_grad]
        while self.step < self.stage.steps:
            loss = self._gradients(items)
            norm = self.accelerator.clip_grad_norm_(learning, self.stage.grad_clip)
            self._note(loss, norm)
            set_learning_rate(self.optimizer, learning_rate(self.stage, self.step))
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            self.advance(self.stage.batch_size * self.stage.grad_accum * self.accelerator.num_processes)
            self._finish_step()

    def _gradients(self, items: Iterator[Item]) -> Tensor:
        """Add up the gradients of the step's forward passes; returns their mean loss."""
        passes, total = self.stage.grad_accum, torch.zeros((), device=self.accelerator.device)
        for number in range(self.step * passes, (self.step + 1) * passes):
            item = next(items)
            self.order.seed_forward(Slot(number, self.accelerator.process_index))
            last = number == (self.step + 1) * passes - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*item.on(self.accelerator.device))
                self.accelerator.backward(loss / passes)
            total += loss.detach() / passes
        return total

    def _note(self, loss: Tensor, norm: Tensor | None) -> None:
        """Keep loss and gradient norm; on a CPU look at them at once, so that not even this step is taken."""
        norm = torch.zeros(()) if norm is None else whole(norm)
        self._seen.append((self.step + 1, torch.stack([loss.float(), norm.detach().to(loss.device).float()])))
        if self.accelerator.device.type == "cpu":
            self._look()

    def _look(self) -> None:
        """Fetch what was noted (on an accelerator this waits for it) and refuse what is not finite."""
        if not self._seen:
            return
        steps, values = [step for step, _ in self._seen], torch.stack([value for _, value in self._seen])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        self._seen.clear()
        for step, (loss, norm) in zip(steps, values.tolist(), strict=True):
            if not (_finite(loss) and _finite(norm)):
                raise UserError(
                    f"Stage {self.name!r} broke down in step {step}: the loss is {loss:.4g} and the norm of its "
                    f"gradient {norm:.4g}. The last good checkpoint is kept. Lower stages.{self.name}.lr or "
                    "grad_clip, add warmup_steps, or check the data (`pixelvla data lint`); then train "
                    "again with another --out."
                )
            self.sums = (self.sums[0] + loss, self.sums[1] + norm, self.sums[2] + 1)

    def _finish_step(self) -> None:
        end = self.step == self.stage.steps
        if end or self.step % self.stage.log_every == 0:
            self._look()
            self._report()
        stop = self._stop_asked()
        if stop or end or self.step % self.stage.save_every == 0:
            self._look()
            self.save(self.step, self.sums)
        if stop and not end:
            raise Interrupted

    def _report(self) -> None:
        loss, norm, count = self.sums
        self.sums = (0.0, 0.0, 0.0)
        rate = learning_rate(self.stage, self.step - 1)
        self.report(self.step, {"loss": loss / max(count, 1), "lr": rate, "grad_norm": norm / max(count, 1)})

    def _stop_asked(self) -> bool:
        """Whether a signal came, to any process: all must stop after the same step."""
        if self.accelerator.num_processes == 1:
            return self.interrupt.asked
        if self.step % ASK_EVERY:
            return False
        asked = torch.tensor(float(self.interrupt.asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, reduction="sum"))


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
