"""Options of the runner ``ray``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RayConfig:
    """Options of the runner ``ray``.

    Attributes:
        workers: how many tasks run at once.
        cpus: cores that each worker reserves; threads of its libraries are limited to them.
        gpus: accelerators that each worker reserves; fractions share one.
        address: of a running cluster, such as auto or ray://head:10001; without one, Ray starts on this machine.
        retries: how often a task is done again whose worker died.
    """

    workers: int = 2
    cpus: float = 1
    gpus: float = 0
    address: str | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected at least 1")
        for name in ("cpus", "gpus", "retries"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")
