"""What a device can do at best, measured, and what a prediction asks of it at least.

A pass over a transformer must read every weight once and do two operations per weight and token; which of the two takes
longer bounds its time from below (the roofline model). Activations and the kept keys and values are left out, so the
bound is a little too low, never too high.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from pixelvla_openvla.openvla import OpenVLA
    from torch import nn


@dataclass(frozen=True)
class Limits:
    """Of a device.

    Attributes:
        flops: Floating-point operations per second, in a large product of bfloat16 matrices.
        bandwidth: Bytes per second, in a large copy on the device (each byte is read and written).
    """

    flops: float
    bandwidth: float

    def floor_s(self, passes: Iterable[tuple[float, float]]) -> float:
        """Least seconds for passes of (operations, bytes of weights), one after the other."""
        return sum(max(work / self.flops, size / self.bandwidth) for work, size in passes)


def waiter(device: str) -> Callable[[], None]:
    """A call that returns when the device has done its work."""
    import torch

    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def measure_limits(device: str, *, side: int = 8192, copied: int = 2**30) -> Limits:
    """Multiply square matrices, and copy bytes; the best of several tries."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = waiter(device)
    product_s = _best(lambda: torch.mm(a, b), wait)
    copy_s = _best(lambda: target.copy_(source), wait)
    return Limits(2 * side**3 / product_s, 2 * copied / copy_s)


def _best(call: Callable[[], Any], wait: Callable[[], None], tries: int = 10, repeats: int = 5) -> float:
    seconds = []
    for _ in range(tries):
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        wait()
        seconds.append((time.perf_counter() - start) / repeats)
    return min(seconds)


def operations(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call: matrix products, convolutions and, on CUDA, attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Weights:
    """Bytes that must be read.

    Attributes:
        vision: Of what is computed of the towers, and of the projector.
        layers: Of the language model's layers.
        lm_head: Of the map to logits; no chunk needs it.
    """

    vision: int
    layers: int
    lm_head: int

    @classmethod
    def of(cls, base: OpenVLA) -> Weights:
        towers = [part for tower in base.vision_backbone.towers for part in (tower.patch_embed, *tower.blocks[:-1])]
        language = base.language_model
        return cls(
            vision=sum(map(size, towers)) + size(base.projector),
            layers=size(language.model.layers),
            lm_head=size(language.lm_head),
        )

    def chunk(self, work: float) -> list[tuple[float, float]]:
        """The one pass of a chunk, for `Limits.floor_s`; `work` is its number of operations."""
        return [(work, self.vision + self.layers)]

    def native(self, work: float, tokens: int, width: int = 2) -> list[tuple[float, float]]:
        """The passes of an action of so many tokens: image and prompt give the first, each other one needs its own.

        Args:
            work: Operations of all passes together.
            width: Bytes per weight.
        """
        step = self.layers + self.lm_head
        alone = 2 * step / width
        first = (work - (tokens - 1) * alone, self.vision + step)
        return [first, *[(alone, step)] * (tokens - 1)]


def size(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(_bytes(parameter) for parameter in module.parameters())


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
