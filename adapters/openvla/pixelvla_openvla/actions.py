"""OpenVLA's discrete actions: 256 ids at the end of the vocabulary, one per dimension, low ids for large values.

A dimension A; values are float64. Source: RT-2's binning as OpenVLA does it (arXiv 2406.09246, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.errors import suggest


class ActionTokenizer:
    """Translate normalised actions in [-1, 1] to ids and back.

    Args:
        vocab_size: One more than the highest action id.
        bins: Number of edges; there are `bins - 1` values, the middles between them.
    """

    def __init__(self, vocab_size: int, bins: int = 256) -> None:
        self.vocab_size = vocab_size
        self.edges = np.linspace(-1.0, 1.0, bins)
        self.centers = (self.edges[:-1] + self.edges[1:]) / 2.0

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """Return int64 ids of the same shape; values are clipped to [-1, 1] first."""
        clipped = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        return self.vocab_size - np.digitize(clipped, self.edges).astype(np.int64)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Return float64 values of the same shape; an id that is no action id gives the nearest end, as upstream."""
        index = np.clip(self.vocab_size - np.asarray(ids, dtype=np.int64) - 1, 0, len(self.centers) - 1)
        return self.centers[index]


def check_statistics(norm_stats: Any) -> None:
    """Refuse statistics in which an action's number of dimensions cannot be found.

    Raises:
        CheckpointError: a data set has no "action" with lists of numbers q01 and q99 of one length.
    """
    if not isinstance(norm_stats, Mapping):
        raise CheckpointError(f"The action statistics are {norm_stats!r}; expected one entry for each data set.")
    for name, entry in norm_stats.items():
        action = entry.get("action") if isinstance(entry, Mapping) else None
        low, high = (_numbers(action, key) for key in ("q01", "q99"))
        if not low or not high:
            raise CheckpointError(
                f"The action statistics of the data set {name!r} have no lists of numbers action.q01 and action.q99. "
                "Copy dataset_statistics.json (or norm_stats in config.json) from the checkpoint's repository again."
            )
        if len(low) != len(high):
            raise CheckpointError(
                f"The action statistics of the data set {name!r} have {len(low)} values in q01 and {len(high)} in "
                "q99; expected one for each dimension of an action. Copy the file again."
            )


def _numbers(action: Any, key: str) -> Sequence[float]:
    values = action.get(key) if isinstance(action, Mapping) else None
    if isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values):
        return values
    return ()


def action_stats(norm_stats: Mapping[str, Any], unnorm_key: str | None) -> Mapping[str, Any]:
    """Return the action statistics of one data set.

    Raises:
        UserError: no key is given although there are several data sets, or there is none of that name.
    """
    if unnorm_key is None and len(norm_stats) == 1:
        unnorm_key = next(iter(norm_stats))
    if unnorm_key is None or unnorm_key not in norm_stats:
        found = f"unnorm_key is {unnorm_key!r}" if unnorm_key else "unnorm_key is missing"
        raise UserError(
            f"{found}, but this checkpoint holds the action statistics of {len(norm_stats)} data sets: "
            f"{', '.join(sorted(norm_stats)) or 'none'}.{suggest(unnorm_key or '', norm_stats)} Name the one whose "
            "robot is driven."
        )
    return norm_stats[unnorm_key]["action"]


def unnormalise(normalised: np.ndarray, stats: Mapping[str, Any]) -> np.ndarray:
    """Map [-1, 1] to the data set's own units between its 1st and 99th percentile; where mask is False, leave alone.

    Args:
        normalised: float[..., A].
        stats: "q01" and "q99" (A values each) and optionally "mask" (A booleans).
    """
    low, high = np.asarray(stats["q01"], dtype=np.float64), np.asarray(stats["q99"], dtype=np.float64)
    mask = np.asarray(stats.get("mask", np.ones_like(low)), dtype=bool)
    return np.where(mask, 0.5 * (normalised + 1) * (high - low) + low, normalised)
