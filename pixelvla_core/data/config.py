"""Options of core's own dataset, the mixture. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MixturePart:
    """One dataset of a mixture.

    Attributes:
        name: The dataset part, such as ``lerobot``. options: Its own.
        weight: Share of the samples, relative to the other parts'; without any, every frame counts alike.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: float | None = None


@dataclass(frozen=True)
class MixtureConfig:
    """Several datasets as one.

    Attributes:
        parts: Names of your choice -> the datasets.
        camera: What samples call their image, whatever the parts call theirs.
        mixed_fps: Allow parts whose actions come at different rates; the rate is then unknown to the checkpoint.
    """

    parts: dict[str, MixturePart]
    camera: str = "front"
    mixed_fps: bool = False

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty; expected at least one dataset, as NAME: {name: lerobot, options: {...}}")
        weights = {name: part.weight for name, part in self.parts.items()}
        given = [weight for weight in weights.values() if weight is not None]
        if given and (len(given) < len(weights) or not all(0 < weight < float("inf") for weight in given)):
            raise ValueError(f"parts have the weights {weights}; expected a number above 0 for each, or none at all")
