"""ActionContract: statistics, rule and conventions of one action space. A checkpoint carries exactly one.

Shapes: H horizon, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pixelvla_core.contract.conventions import ORIENTATIONS, RULES, UNKNOWN_FPS, Gripper, Rotation, check_choice
from pixelvla_core.contract.names import same_names
from pixelvla_core.contract.statistics import Statistics, pick
from pixelvla_core.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

    Actions = TypeVar("Actions", np.ndarray, Tensor)

VERSION = 1
_EPSILON = 1e-8

CONVENTIONS = ("names", "camera", "orientation", "gripper", "rotation", "frame")
"""The fields that may be listed as unknown."""


@dataclass(frozen=True, kw_only=True)
class ActionContract:
    """What an action is, from the dataset through the model to the robot.

    Attributes:
        names: One name per dimension.
        statistics: In physical units, per dimension.
        rule: "q99", "min_max" or "mean_std".
        mask: True where the rule applies; False leaves a dimension alone, as OpenVLA does with the gripper.
        fps: Actions per second; 0 if that is not known.
        camera: The camera whose images go with the actions.
        orientation: How its images were turned: "upright", "rotate180" or "flip_vertical".
        gripper: Its convention, or None without a gripper.
        rotation: Its representation, or None if the action turns nothing.
        frame: The coordinate frame of positions and rotations, such as "base" or "tool".
        dataset: Where the statistics come from.
        revision: The data's revision, if it has one.
        fingerprint: Hash of the data, or "" if the statistics came without data.
        state: Statistics of the robot's states in the data, where the base has none of its own; it normalises by them.
        unknown: Which of ``CONVENTIONS`` nobody has stated, as around a base's bare statistics; what stands in these
            fields means nothing. A gripper that is None and not listed here is known not to be there.
    """

    names: tuple[str, ...]
    statistics: Statistics
    rule: str = "q99"
    mask: tuple[bool, ...]
    fps: float
    camera: str
    orientation: str = "upright"
    gripper: Gripper | None = None
    rotation: Rotation | None = None
    frame: str = "base"
    dataset: str = ""
    revision: str = ""
    fingerprint: str = ""
    state: Statistics | None = None
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "unknown", tuple(self.unknown))
        object.__setattr__(self, "mask", tuple(bool(value) for value in self.mask))
        self._check_texts()
        if isinstance(self.fps, bool) or not isinstance(self.fps, Real) or not 0 <= self.fps < np.inf:
            raise ContractError(
                f"The contract's fps is {self.fps!r}; expected a number of actions per second, or 0 if it is not known."
            )
        check_choice("normalisation rule", self.rule, RULES)
        check_choice("image orientation", self.orientation, ORIENTATIONS)
        sizes = {"names": len(self.names), "mask": len(self.mask), "statistics": self.statistics.dim}
        if len(set(sizes.values())) > 1:
            raise ContractError(f"The parts of an action contract differ in dimensions: {sizes}. They must agree.")
        last = max(
            [-1, *([self.gripper.index] if self.gripper else []), *(self.rotation.dims if self.rotation else [])]
        )
        if last >= self.dim:
            raise ContractError(f"The contract speaks of dimension {last}, but actions have {self.dim} ({self.names}).")

    def _check_texts(self) -> None:
        for name in ("camera", "frame"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ContractError(f"The contract's {name} is {value!r}; expected a name.")
        for name in self.unknown:
            check_choice("unknown field", name, CONVENTIONS)

    @property
    def dim(self) -> int:
        """Number of action dimensions A."""
        return len(self.names)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The values that the rule maps to -1 and 1 (mean - std and mean + std for "mean_std"), float64[A] each."""
        stats = {name: np.array(values) for name, values in self.statistics.to_json().items()}
        if self.rule == "mean_std":
            return stats["mean"] - stats["std"], stats["mean"] + stats["std"]
        return (stats["q01"], stats["q99"]) if self.rule == "q99" else (stats["min"], stats["max"])

    def knows(self, name: str) -> bool:
        """Whether somebody has stated a field; an fps of 0 is nobody's statement."""
        return self.fps != UNKNOWN_FPS if name == "fps" else name not in self.unknown

    def normalize(self, actions: Actions) -> Actions:
        """Map physical units to the model's, float[..., A] (NumPy or torch).

        As OpenVLA's loader: ``2 (x - low) / (high - low + 1e-8) - 1`` clipped to [-1, 1] where the mask is set, and 0
        in dimensions that never change; "mean_std" is ``(x - mean) / (std + 1e-8)``, not clipped.

        Raises:
            ContractError: the last axis does not have A values.
        """
        self._check_dim(actions)
        if self.rule == "mean_std":
            mean, std, mask = _like(actions, self.statistics.mean, self.statistics.std, self.mask)
            return _where(mask, (actions - mean) / (std + _EPSILON), actions)
        low, high, mask, constant = _like(actions, *self.bounds, self.mask, self._constant())
        scaled = (2 * (actions - low) / (high - low + _EPSILON) - 1).clip(-1, 1)
        scaled = _where(constant, scaled * 0, scaled)
        return _where(mask, scaled, actions)

    def unnormalize(self, actions: Actions) -> Actions:
        """Map the model's units to physical ones, float[..., A]: ``(a + 1) / 2 (high - low) + low`` under the mask.

        Raises:
            ContractError: the last axis does not have A values.
        """
        self._check_dim(actions)
        if self.rule == "mean_std":
            mean, std, mask = _like(actions, self.statistics.mean, self.statistics.std, self.mask)
            return _where(mask, actions * (std + _EPSILON) + mean, actions)
        low, high, mask = _like(actions, *self.bounds, self.mask)
        return _where(mask, 0.5 * (actions + 1) * (high - low) + low, actions)

    def _constant(self) -> np.ndarray:
        return np.array(self.statistics.min) == np.array(self.statistics.max)

    def _check_dim(self, actions: Any) -> None:
        if actions.shape[-1] != self.dim:
            raise ContractError(
                f"Actions have {actions.shape[-1]} dimensions, but the contract of {self.dataset or 'this model'} has "
                f"{self.dim}: {', '.join(self.names)}. Use the data that the contract was made for, or make a new one."
            )

    def check_compatible(
        self, other: ActionContract, *, mine: str = "the checkpoint", theirs: str = "the data"
    ) -> None:
        """Refuse another contract whose actions would mean something else; statistics and data may differ.

        Raises:
            ContractError: names each field that differs, with both values.
        """
        if different := self.differences(other, mine=mine, theirs=theirs):
            raise ContractError(
                f"The action contract of {mine} does not fit {theirs}: {'; '.join(different.values())}. "
                "Actions would mean something else. Convert the data, or start from a model with a fitting contract."
                f"{self.renaming(other, different)}"
            )

    def differences(self, other: ActionContract, *, mine: str, theirs: str) -> dict[str, str]:
        """Both values, in words, of each field that both know and that differs; statistics and data may differ.

        Returns:
            Field -> words, with "dimensions" beside the fields where names do not tell their number.
        """
        found = {}
        for item in fields(self):
            known = self.knows(item.name) and other.knows(item.name)
            one, two = getattr(self, item.name), getattr(other, item.name)
            if item.name == "names" and same_names(one, two, changes=self._by_changes and other._by_changes):
                continue
            if item.name not in _FREE and known and one != two:
                found[item.name] = f"{item.name}: {_show(one)} in {mine}, {_show(two)} in {theirs}"
        if self.dim != other.dim and "names" not in found:
            found["dimensions"] = f"dimensions: {self.dim} in {mine}, {other.dim} in {theirs}"
        return found

    @property
    def _by_changes(self) -> bool:
        """Whether it is stated that actions are changes of a position and orientation."""
        return self.knows("rotation") and self.rotation is not None and self.rotation.delta

    def renaming(self, other: ActionContract, different: Mapping[str, str]) -> str:
        """What to do if the names among the :meth:`differences` are only other words for the same."""
        if "names" not in different or self.dim != other.dim:
            return ""
        return (
            " If the dimensions are the same and only their names are not, give the data the other ones: "
            f"action_names=[{','.join(self.names)}] among its options."
        )

    @classmethod
    def from_norm_stats(cls, norm_stats: Mapping[str, Mapping], key: str | None = None, **facts: Any) -> ActionContract:
        """Build a contract around a base's own statistics (an OpenVLA ``dataset_statistics.json``).

        Args:
            norm_stats: dataset name -> entry; one with a "rule" was scaled by it, others by q99 as OpenVLA's.
            key: which dataset; None if there is only one.
            facts: the remaining fields (``fps``, ``camera``, ...), which such a file does not hold; list in ``unknown``
                what nobody has stated.
        """
        key, entry = pick(norm_stats, key)
        statistics = Statistics.from_json(entry)
        mask = tuple(entry.get("mask", [True] * statistics.dim))
        names = facts.pop("names", tuple(f"action_{index}" for index in range(statistics.dim)))
        if "rule" in entry:
            facts.setdefault("rule", entry["rule"])
        return cls(names=names, statistics=statistics, mask=mask, **{"dataset": key, **facts})

    def to_json(self) -> dict[str, Any]:
        """Return plain data that ``json`` can write."""
        data: dict[str, Any] = {"version": VERSION}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "state" and value is None:
                continue  # so that such files are those of versions that knew no states
            if hasattr(value, "to_json"):
                value = value.to_json()
            data[item.name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionContract:
        """Read what :meth:`to_json` wrote.

        Raises:
            ContractError: another version, or fields that are missing or unknown.
        """
        data = {"unknown": [], "state": None, **data}  # older files state everything, and have no states
        version = data.pop("version", None)
        known = {item.name for item in fields(cls)}
        if version != VERSION or set(data) != known:
            raise ContractError(
                f"An action contract has version {version!r} and the fields {sorted(data)}; this pixelvla reads "
                f"version {VERSION} with {sorted(known)}. Write it again with the pixelvla that reads it."
            )
        data["statistics"] = Statistics.from_json(data["statistics"])
        data["state"] = data["state"] and Statistics.from_json(data["state"])
        data["gripper"] = data["gripper"] and Gripper.from_json(data["gripper"])
        data["rotation"] = data["rotation"] and Rotation.from_json(data["rotation"])
        return cls(**data)


_FREE = ("statistics", "dataset", "revision", "fingerprint", "state", "unknown")


def _show(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _like(actions: Any, *values: Any) -> list[Any]:
    """Turn values into arrays or tensors that combine with ``actions`` without changing its type or device."""
    arrays = [np.asarray(value) for value in values]
    if isinstance(actions, np.ndarray):
        kind = actions.dtype if np.issubdtype(actions.dtype, np.floating) else np.float64
        return [array if array.dtype == np.bool_ else array.astype(kind) for array in arrays]
    import torch

    return [
        torch.as_tensor(array, device=actions.device, dtype=None if array.dtype == np.bool_ else actions.dtype)
        for array in arrays
    ]


def _where(mask: Any, yes: Any, no: Any) -> Any:
    if isinstance(mask, np.ndarray):
        return np.where(mask, yes, no)
    import torch

    return torch.where(mask, yes, no)
