"""Options of the embedded environment. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from . import spec


@dataclass(frozen=True)
class TabletopConfig:
    """Options of the environment ``tabletop``.

    Attributes:
        image_size: Pixels per side of the camera's picture.
        max_steps: Steps after which an episode is cut off.
    """

    image_size: int = spec.IMAGE_SIZE
    max_steps: int = spec.MAX_STEPS

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise ValueError(f"image_size is {self.image_size}; expected at least 32")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; expected at least 1")
