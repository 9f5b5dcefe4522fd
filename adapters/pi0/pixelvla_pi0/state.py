"""Statistics of actions and states that lie beside weights, and LeRobot's own step that normalises the state.

They come from LeRobot's `policy_preprocessor.json`, or from a `dataset_statistics.json` in OpenVLA's format, whose
entry "proprio" is the state's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelvla_core.api import CheckpointError, UserError, read_json
from pixelvla_core.contract import Statistics

STATE, ACTION = "observation.state", "action"
PREPROCESSOR, STATISTICS = "policy_preprocessor.json", "dataset_statistics.json"
ACTION_STATISTICS = ("mean", "std", "min", "max", "q01", "q99")
RULES = {"MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "q99"}
"""LeRobot's modes of normalisation -> the action contract's rules; by another one no contract can be made."""


class StateRule:
    """Normalises states as the weights were trained to read them, and pads them.

    Args:
        step: LeRobot's normaliser; None leaves states in their units.
        width: What states are padded to.
        used: False gives zeros.
    """

    def __init__(self, step: Any, *, width: int, used: bool = True) -> None:
        self.step, self.width, self.used = step, width, used
        self.warned = False

    @property
    def dim(self) -> int | None:
        """Values that the statistics are of; None without statistics."""
        if self.step is None:
            return None
        return max(torch.as_tensor(value).numel() for value in self.step.stats[STATE].values())

    def __call__(self, state: Any, key: str) -> Tensor:
        """One sample's state as float32[width].

        Raises:
            UserError: the sample has no state, one that is not finite numbers, or more values than the model reads.
        """
        if not self.used:
            return torch.zeros(self.width)
        if state is None:
            raise UserError(
                f"Sample {key or '(without a key)'} has no state, but pi0 reads one. Take data with "
                "observation.state, or set backbone.options.state=false, and the expert reads zeros."
            )
        found = _finite(state, key)
        if len(found) > self.width:
            raise UserError(
                f"Sample {key or '(without a key)'} has a state of {len(found)} values; pi0 reads {self.width} at "
                "most. Leave out the ones that the task does not need, or set backbone.options.state=false."
            )
        if self.step is not None:
            found = self._normalised(found, key)
        elif not self.warned:
            self._warn()
        return torch.nn.functional.pad(found, (0, self.width - len(found)))

    def _warn(self) -> None:
        self.warned = True
        warnings.warn(
            "The weights bring no statistics of the robot's state, so pi0 reads states in their own units. Training "
            "takes them from its data; give backbone.options.state_mean and state_std for another robot's, or state: "
            "false.",
            stacklevel=4,
        )

    def _normalised(self, found: Tensor, key: str) -> Tensor:
        from lerobot.processor import TransitionKey

        if len(found) != self.dim:
            raise UserError(
                f"Sample {key or '(without a key)'} has a state of {len(found)} values, but the statistics by "
                f"which pi0 reads states are of {self.dim}: another robot's. Give this robot's as "
                "backbone.options.state_mean and state_std."
            )
        transition = {TransitionKey.OBSERVATION: {STATE: found}}
        return self.step(transition)[TransitionKey.OBSERVATION][STATE]


def _finite(state: Any, key: str) -> Tensor:
    """One sample's values, float32; a single one that is not finite would make every action so."""
    try:
        found = torch.as_tensor(state).float().flatten()
    except (TypeError, ValueError, RuntimeError):
        found = torch.tensor([torch.nan])
    if not torch.isfinite(found).all():
        raise UserError(
            f"Sample {key or '(without a key)'} has the state {state!r}; expected finite numbers. Look at the sensor "
            "or the data, or set backbone.options.state=false, and the expert reads zeros."
        )
    return found


def read_statistics(folder: Path | None) -> dict[str, Any]:
    """Data set -> {"action": ..., "proprio": ...} beside the weights; empty if nothing is there.

    Raises:
        CheckpointError: a file is damaged.
    """
    if folder is None:
        return {}
    if (folder / STATISTICS).is_file():
        return read_json(folder / STATISTICS)
    normaliser = _normaliser(folder)
    stats = {} if normaliser is None else normaliser.stats
    found: dict[str, Any] = {
        name: _lists(stats[key]) for name, key in (("action", ACTION), ("proprio", STATE)) if key in stats
    }
    rule = _action_rule(normaliser)
    if "action" in found:
        found["action"] = {**found["action"], "rule": rule} if rule else {}
    return {"lerobot": found} if found else {}


def _action_rule(normaliser: Any) -> str | None:
    """By which of the contract's rules LeRobot's normaliser scales actions."""
    modes = {} if normaliser is None else {kind.value: mode.value for kind, mode in normaliser.norm_map.items()}
    return RULES.get(modes.get("ACTION", ""))


def action_statistics(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The entries from which an action contract can be made."""
    return {
        key: {"action": entry["action"]}
        for key, entry in statistics.items()
        if all(name in entry.get("action", {}) for name in ACTION_STATISTICS)
    }


def state_step(
    folder: Path | None,
    statistics: Mapping[str, Any],
    *,
    key: str | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> Any:
    """LeRobot's normaliser of the state, from what the user gave or what lies beside the weights; None without any.

    Raises:
        UserError: there are statistics of several data sets, and none of them is named.
    """
    if mean is not None:
        return _mean_std({"mean": mean, "std": std})
    if folder is not None and not (folder / STATISTICS).is_file():
        found = _normaliser(folder)
        return found if found is not None and STATE in found.stats else None
    entries = {name: entry["proprio"] for name, entry in statistics.items() if "proprio" in entry}
    if not entries:
        return None
    if key is None and len(entries) > 1:
        raise UserError(
            f"The weights carry statistics of {', '.join(sorted(entries))}. Say which the robot's state follows: "
            "backbone.options.key=NAME."
        )
    name = next(iter(entries)) if key is None else key
    if name not in entries:
        raise UserError(
            f"backbone.options.key is {name!r}, but the weights carry statistics of {', '.join(sorted(entries))}."
        )
    return _mean_std(entries[name])


def data_step(statistics: Statistics) -> Any:
    """LeRobot's normaliser of the state from a dataset's statistics; values that never change there are centred only.

    Divided by a deviation of zero, the least difference on a robot would be a huge number.
    """
    spans = zip(statistics.std, statistics.min, statistics.max, strict=True)
    std = [deviation if high > low else 1.0 for deviation, low, high in spans]
    return _mean_std({"mean": list(statistics.mean), "std": std})


def _mean_std(entry: Mapping[str, Any]) -> Any:
    """LeRobot's step by mean and standard deviation, pi0's rule.

    Raises:
        UserError: they are not there, no numbers, or differ in length.
    """
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import NormalizerProcessorStep

    values = [_numbers(entry.get(name)) for name in ("mean", "std")]
    if not values[0] or len(values[0]) != len(values[1]) or min(values[1]) < 0:
        raise UserError(
            f"The statistics of the robot's state are {dict(entry)}; expected lists of finite numbers, `mean` and "
            f"`std`, of one length, no `std` below 0. Correct the entry `proprio` in {STATISTICS} beside the weights, "
            "or give backbone.options.state_mean and state_std."
        )
    stats = {STATE: {name: torch.tensor(value).float() for name, value in zip(("mean", "std"), values, strict=True)}}
    feature = PolicyFeature(type=FeatureType.STATE, shape=(len(entry["mean"]),))
    return NormalizerProcessorStep(
        features={STATE: feature}, norm_map={FeatureType.STATE: NormalizationMode.MEAN_STD}, stats=stats
    )


def _numbers(values: Any) -> list[float]:
    """A list of finite numbers; empty if it is none."""
    good = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    return [float(value) for value in values] if good and all(math.isfinite(value) for value in values) else []


def _normaliser(folder: Path) -> Any:
    """LeRobot's normaliser as it was saved beside the weights, or None."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    from lerobot.processor import NormalizerProcessorStep
    from safetensors.torch import load_file

    steps = read_json(path).get("steps", [])
    entry = next((step for step in steps if step.get("registry_name") == "normalizer_processor"), None)
    if entry is None or not entry.get("state_file"):
        return None
    if not (folder / entry["state_file"]).is_file():
        raise CheckpointError(f"{path} names {entry['state_file']}, which is not there. Download the rest.")
    step = NormalizerProcessorStep(**{**entry.get("config", {}), "device": "cpu"})
    step.load_state_dict(load_file(folder / entry["state_file"]))
    return step


def _lists(entry: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: torch.as_tensor(value).flatten().tolist() for name, value in entry.items()}
