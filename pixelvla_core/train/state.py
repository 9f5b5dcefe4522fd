"""The training state beside a checkpoint's weights: where the run is, and what the optimizer remembers.

``state.json`` holds plain values, ``optimizer.safetensors`` one tensor per parameter and moment, named
``<moment>/<parameter>``. Randomness has no state (see ``order.py``), and the learning rate follows from the step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelvla_core.checkpoint.find import OPTIMIZER
from pixelvla_core.checkpoint.tensors import check_fit, read_tensors, write_tensors
from pixelvla_core.errors import CheckpointError
from pixelvla_core.files import write_json

STATE = "state.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter, as torch names it."""


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        stage: Index into the recipe's ``run``. step: optimizer steps done in that stage.
        data: The dataset's fingerprint. world: number of processes.
        sums: What the next report has so far: sum of losses, of gradient norms, and their number.
    """

    stage: int
    step: int
    data: str
    world: int
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)


def write_state(folder: Path, position: Position, optimizer: Mapping[str, Tensor]) -> None:
    """Write the training state into a checkpoint folder that is being filled."""
    write_json(folder / STATE, asdict(position))
    if optimizer:
        write_tensors(folder / OPTIMIZER, optimizer)


def read_position(folder: Path) -> Position:
    """Read where a run stood.

    Raises:
        CheckpointError: the folder is a checkpoint without a training state, such as one that ``wrap`` wrote.
    """
    path = folder / STATE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no training state, so nothing can go on from it. Train without --resume."
        )
    return Position(**json.loads(path.read_text(encoding="utf-8")))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What AdamW remembers, by the names of the parameters. Every process of the run must call this."""
    return {
        f"{moment}/{name}": whole(value)
        for name, parameter, _ in _learning(model, optimizer)
        for moment, value in (optimizer.state.get(parameter) or _nothing_yet(parameter)).items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Give AdamW back what it remembered.

    Raises:
        CheckpointError: the state is damaged, not whole, or of another set of parameters.
    """
    path = folder / OPTIMIZER
    found = read_tensors(path) if path.is_file() else {}
    learning = list(_learning(model, optimizer))
    wanted = {f"{key}/{name}": value for name, p, _ in learning for key, value in _nothing_yet(p, "meta").items()}
    check_fit(found, wanted, str(path))
    for name, parameter, group in learning:
        step, first, second = (found[f"{moment}/{name}"] for moment in MOMENTS)
        # Fused AdamW counts where it computes; otherwise the count is on the CPU, where reading it waits for nothing.
        step = step.to(parameter.device) if group.get("fused") or group.get("capturable") else step
        optimizer.state[parameter] = dict(
            zip(MOMENTS, (step, like(first, parameter), like(second, parameter)), strict=True)
        )


def _learning(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, nn.Parameter, Mapping[str, Any]]]:
    """Name, parameter and group of everything that the optimizer moves."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], parameter, group


def _nothing_yet(parameter: nn.Parameter, device: str = "cpu") -> dict[str, Tensor]:
    """What AdamW begins with, and so remembers of a parameter that no gradient has reached yet."""
    zeros = torch.zeros(parameter.shape, dtype=parameter.dtype, device=device)
    return dict(zip(MOMENTS, (torch.zeros((), device=device), zeros, zeros), strict=True))


def whole(value: Any) -> Tensor:
    """A tensor that a process holds whole, also where it is sharded over several."""
    value = torch.as_tensor(value)
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor placed (and, if need be, sharded) as a parameter is."""
    if hasattr(parameter, "placements"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
    return value.to(parameter.device)
