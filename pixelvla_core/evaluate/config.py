"""Options of core's own tracker, and what an evaluation can be told besides its recipe. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HoldConfig:
    """The tracker ``hold`` has no options."""


@dataclass(frozen=True)
class Running:
    """How episodes are run; none of it changes what is measured.

    Attributes:
        slots: Episodes that one worker runs in lockstep, with one batched forward pass for all of them. With the
            embedded base, 16 cost a quarter of the CPU time per action of one at a time; 32 gain little more.
        device: Where a worker puts the model.
        films: Episodes of each task, split and prompt of which frames are kept.
    """

    slots: int = 16
    device: str = "cpu"
    films: int = 0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots is {self.slots}; expected at least 1")
        if self.films < 0:
            raise ValueError(f"films is {self.films}; expected at least 0")
