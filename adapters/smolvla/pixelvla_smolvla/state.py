"""The robot's state as SmolVLA reads it, and statistics of actions, both from what LeRobot saved beside the weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelvla_core.api import CheckpointError, Sample, UserError, read_json, tensor_headers
from pixelvla_core.contract import Statistics

STATE, ACTION = "observation.state", "action"
PREPROCESSOR = "policy_preprocessor.json"
ACTION_STATISTICS = ("mean", "std", "min", "max", "q01", "q99")
RULES = {"MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "q99"}
"""LeRobot's modes of normalisation -> the action contract's rules; by another one no contract can be made."""


def read_normalizer(folder: Path) -> Any:
    """LeRobot's own normalizer with the statistics beside the weights, or None if there are none.

    Raises:
        CheckpointError: the preprocessor names a file that is not there, or is damaged.
    """
    from lerobot.processor import NormalizerProcessorStep
    from safetensors.torch import load_file

    path = folder / PREPROCESSOR
    steps = read_json(path).get("steps", []) if path.is_file() else []
    entry: dict[str, Any] = next((step for step in steps if step.get("registry_name") == "normalizer_processor"), {})
    if not entry.get("state_file"):
        return None
    if not (folder / entry["state_file"]).is_file():
        raise CheckpointError(f"{path} names {entry['state_file']}, which is not there. Download the rest.")
    tensor_headers(folder / entry["state_file"])  # refuses a damaged file in words
    step = NormalizerProcessorStep(**{**entry.get("config", {}), "device": "cpu"})
    step.load_state_dict(load_file(folder / entry["state_file"]))
    return step


def stated(mean: Sequence[float], std: Sequence[float]) -> Any:
    """LeRobot's normalizer by a mean and a standard deviation that the user or the data give."""
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import NormalizerProcessorStep

    return NormalizerProcessorStep(
        features={STATE: PolicyFeature(type=FeatureType.STATE, shape=(len(mean),))},
        norm_map={FeatureType.STATE: NormalizationMode.MEAN_STD},
        stats={STATE: {"mean": torch.tensor(mean), "std": torch.tensor(std)}},
    )


def of_data(statistics: Statistics) -> Any:
    """LeRobot's normalizer by a dataset's statistics; values that never change there are centred only.

    Divided by a deviation of zero, the least difference on a robot would be a huge number.
    """
    spans = zip(statistics.std, statistics.min, statistics.max, strict=True)
    return stated(statistics.mean, [std if high > low else 1.0 for std, low, high in spans])


def action_statistics(normalizer: Any) -> dict[str, Any]:
    """Data set -> {"action": {...}} if all is there that an action contract is made of; LeRobot names no data set."""
    known = {} if normalizer is None else normalizer.stats.get(ACTION, {})
    modes = {} if normalizer is None else {kind.value: mode.value for kind, mode in normalizer.norm_map.items()}
    rule = RULES.get(modes.get("ACTION", ""))
    if rule is None or any(name not in known for name in ACTION_STATISTICS):
        return {}
    values = {name: torch.as_tensor(known[name]).tolist() for name in ACTION_STATISTICS}
    return {"lerobot": {"action": {**values, "rule": rule}}}


class StateRule:
    """Normalises states as the weights were trained to read them, and pads them.

    Args:
        normalizer: LeRobot's; None, or one without statistics of the state, leaves states in their units.
        width: What states are padded to.
        used: False gives zeros.
    """

    def __init__(self, normalizer: Any, *, width: int, used: bool = True) -> None:
        known = normalizer is not None and "mean" in normalizer.stats.get(STATE, {})
        self.normalizer, self.width, self.used = normalizer if known else None, width, used
        self.warned = False

    @property
    def lacking(self) -> bool:
        """Whether states are read and there are no statistics of them."""
        return self.used and self.normalizer is None

    @property
    def dim(self) -> int | None:
        """Values that the statistics are of; None without statistics."""
        return None if self.normalizer is None else torch.as_tensor(self.normalizer.stats[STATE]["mean"]).numel()

    def __call__(self, sample: Sample) -> Tensor:
        """One sample's state as float32[width].

        Raises:
            UserError: the sample has no state, one that is not finite numbers, or one that does not fit.
        """
        if not self.used:
            return torch.zeros(self.width)
        where = f"Sample {sample.key or '(without a key)'}"
        if sample.state is None:
            raise UserError(
                f"{where} has no state, but SmolVLA reads one. Take data with observation.state, or set "
                "backbone.options.state=false, and zeros are read."
            )
        found = torch.as_tensor(sample.state).float().flatten()
        if not torch.isfinite(found).all():
            raise UserError(
                f"{where} has the state {found.tolist()}; expected finite numbers. Look at the sensor or the data, or "
                "set backbone.options.state=false, and zeros are read."
            )
        if len(found) > self.width:
            raise UserError(
                f"{where} has a state of {len(found)} values; this SmolVLA reads {self.width} at most. Leave out the "
                "ones that the task does not need, or set backbone.options.state=false."
            )
        if self.dim not in (None, len(found)):
            raise UserError(
                f"{where} has a state of {len(found)} values, but the statistics by which SmolVLA reads states are of "
                f"{self.dim}: another robot's. Give this robot's as backbone.options.state_mean and state_std."
            )
        return torch.nn.functional.pad(self._normalised(found), (0, self.width - len(found)))

    def _normalised(self, found: Tensor) -> Tensor:
        from lerobot.processor import TransitionKey

        if self.normalizer is None:
            self._warn()
            return found
        return self.normalizer({TransitionKey.OBSERVATION: {STATE: found}})[TransitionKey.OBSERVATION][STATE]

    def _warn(self) -> None:
        if self.warned:
            return
        self.warned = True
        warnings.warn(
            "No statistics of the robot's state lie beside the weights, so SmolVLA reads states in their own units. "
            "Training takes them from its data; give backbone.options.state_mean and state_std for another robot's, "
            "or state: false.",
            stacklevel=5,
        )
