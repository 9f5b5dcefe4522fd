"""The training state beside a checkpoint's weights: where the run is, and what the optimizer remembers.

``state.json`` holds plain values, ``optimizer.safetensors`` one tensor per parameter and moment, named
``<moment>/<parameter>``. Randomness has no state (see ``order.py``), and the learning rate follows from the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    """What the optimizer remembers, by the names of the parameters. Every process of the run must call this."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{moment}/{names[id(parameter)]}": whole(value)
        for parameter, memory in optimizer.state.items()
        for moment, value in memory.items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Give the optimizer back what it remembered.

    Raises:
        CheckpointError: the state is damaged or of another set of parameters.
    """
    path = folder / OPTIMIZER
    found = read_tensors(path) if path.is_file() else {}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_parameters(found, parameters, path)
    for key, tensor in found.items():
        moment, _, name = key.partition("/")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensor if tensor.ndim == 0 else like(tensor, parameter)


def _check_parameters(found: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    moments = {key: tensor for key, tensor in found.items() if tensor.ndim}
    wanted = {key: parameters.get(key.partition("/")[2]) for key in moments}
    check_fit(moments, {key: value for key, value in wanted.items() if value is not None}, str(path))


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
