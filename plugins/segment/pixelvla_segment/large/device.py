"""Where a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.api import UserError

if TYPE_CHECKING:
    import torch


def device_of(name: str) -> torch.device:
    """Return the device; "auto" is CUDA if there is one.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{name!r} is no device of PyTorch. Take auto, cpu, cuda or cuda:0.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"The device {name} is asked for, but PyTorch finds no CUDA device. Take device: auto.")
    return device


def images_at_once(wanted: int, device: torch.device) -> int:
    """Return how many images a model is given together; without a wish one on a CPU, whose caches hold no more."""
    return wanted or (1 if device.type == "cpu" else 2**31)


def dtype_of(name: str) -> torch.dtype:
    """Return PyTorch's type of that name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
