"""What an action's numbers mean, as types instead of remarks: gripper, rotation and image orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelvla_core.errors import ContractError, suggest
from pixelvla_core.types import RULES

__all__ = ["ORIENTATIONS", "ROTATIONS", "RULES", "UNKNOWN_FPS", "Gripper", "Rotation", "check_choice"]

ORIENTATIONS = ("upright", "rotate180", "flip_vertical")
"""How an image was turned before the model saw it; LIBERO's cameras deliver images upside down."""

ROTATIONS = {"none": 0, "euler_xyz": 3, "axis_angle": 3, "quaternion_xyzw": 4, "quaternion_wxyz": 4, "rot6d": 6}
"""Rotation representations and how many numbers each takes."""

UNKNOWN_FPS = 0.0
"""The rate in a contract that knows none."""

_DELTA = "_delta"


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ContractError with the nearest match unless ``value`` is one of ``known``."""
    if value not in known:
        raise ContractError(f"The {what} is {value!r}.{suggest(str(value), known)} Expected one of {', '.join(known)}.")


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """Which dimension drives the gripper, and what its values mean.

    Attributes:
        index: Dimension of the action.
        open: Value that means open (OpenVLA and Bridge: 1; LIBERO's environment: -1).
        closed: Value that means closed (OpenVLA and Bridge: 0; LIBERO's environment: 1).
        delta: The value is a change (as Google's robot has it) instead of the wanted opening.
    """

    index: int
    open: float
    closed: float
    delta: bool = False

    def __post_init__(self) -> None:
        if self.open == self.closed:
            raise ContractError(f"The gripper's open and closed values are both {self.open}; they must differ.")

    def is_closed(self, value: Any) -> Any:
        """Whether a value (or each of an array) is nearer to closed than to open."""
        return abs(value - self.closed) < abs(value - self.open)

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, "open": self.open, "closed": self.closed, "delta": self.delta}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gripper:
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """How the action turns the tool.

    Attributes:
        kind: A key of ``ROTATIONS``.
        start: First dimension of the rotation in the action; the others follow.
        delta: A change from the present orientation instead of the wanted one.
    """

    kind: str
    start: int = 0
    delta: bool = True

    def __post_init__(self) -> None:
        check_choice("rotation representation", self.kind, tuple(ROTATIONS))

    @property
    def dims(self) -> range:
        """The dimensions of the action that hold the rotation."""
        return range(self.start, self.start + ROTATIONS[self.kind])

    @classmethod
    def parse(cls, text: str, start: int) -> Rotation:
        """Read ``"euler_xyz_delta"``, ``"axis_angle"`` and the like."""
        return cls(kind=text.removesuffix(_DELTA), start=start, delta=text.endswith(_DELTA))

    def __str__(self) -> str:
        return self.kind + (_DELTA if self.delta else "")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "start": self.start, "delta": self.delta}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rotation:
        return cls(**data)
