"""What is suspicious about a dataset's actions, before days of training go into it.

Shapes: N steps, A action dimensions, S state dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pixelvla_core.contract.contract import ActionContract

ERROR, WARNING = "error", "warning"

_OUTLIER_SPANS = 5.0
_TINY_SPAN = 1e-2
_CLIPPED = 0.1
_RARE = 0.005
_SMOOTH = 0.2
_FOLLOWS = 0.99


@dataclass(frozen=True)
class Finding:
    """One remark: "error" (do not train on it) or "warning", the action dimension ("" for all), and what to do."""

    level: str
    dimension: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.dimension + ': ' if self.dimension else ''}{self.text}"


@dataclass(frozen=True)
class _Data:
    actions_NA: np.ndarray
    contract: ActionContract
    episode_N: np.ndarray
    timestamp_N: np.ndarray | None
    state_NS: np.ndarray | None

    def place(self, row: int) -> str:
        start = int(np.argmax(self.episode_N == self.episode_N[row]))
        return f"episode {self.episode_N[row]}, frame {row - start}"


def lint(
    actions_NA: np.ndarray,
    contract: ActionContract,
    *,
    episode_N: np.ndarray | None = None,
    timestamp_N: np.ndarray | None = None,
    state_NS: np.ndarray | None = None,
) -> list[Finding]:
    """Check actions against the contract that a model would learn them by.

    Args:
        actions_NA: all actions in physical units, episode after episode.
        contract: the dataset's own, or the one of a base model.
        episode_N: episode of each step; one episode if left out.
        timestamp_N: seconds, to check the contract's fps.
        state_NS: proprioception, to recognise actions that are absolute.

    Returns:
        Errors first. Empty if nothing is suspicious.
    """
    episodes = np.zeros(len(actions_NA), int) if episode_N is None else episode_N
    data = _Data(actions_NA, contract, episodes, timestamp_N, state_NS)
    broken = list(_not_finite(data))
    if broken:
        return broken
    checks = (_spans, _outliers, _clipped, _gripper, _fps, _absolute)
    return [finding for check in checks for finding in check(data)]


def _not_finite(data: _Data) -> Iterator[Finding]:
    for index, name in enumerate(data.contract.names):
        bad = np.flatnonzero(~np.isfinite(data.actions_NA[:, index]))
        if len(bad):
            yield Finding(
                ERROR,
                name,
                f"{len(bad)} values are NaN or infinite, the first at {data.place(bad[0])}. Remove these episodes.",
            )


def _spans(data: _Data) -> Iterator[Finding]:
    """Dimensions that never change, and spans so small that noise fills [-1, 1]."""
    low_A, high_A = data.contract.bounds
    for index, name in enumerate(data.contract.names):
        values_N = data.actions_NA[:, index]
        full = float(values_N.max() - values_N.min())
        if full == 0:
            yield Finding(WARNING, name, f"is always {values_N[0]:g}; it carries nothing and is normalised to 0.")
        elif data.contract.mask[index] and high_A[index] - low_A[index] < _TINY_SPAN * full:
            yield Finding(
                WARNING,
                name,
                f"spans only {high_A[index] - low_A[index]:.2g} by rule {data.contract.rule} but {full:.2g} in all: "
                "rare motion is clipped away, or noise is blown up. Use min_max, or leave the dimension out.",
            )


def _beyond(data: _Data) -> np.ndarray:
    """How many spans each value lies beyond the rule's bounds, float[N, A]; 0 inside and where the mask is off."""
    low_A, high_A = data.contract.bounds
    excess_NA = np.maximum(low_A - data.actions_NA, data.actions_NA - high_A).clip(min=0)
    span_A = np.where(high_A > low_A, high_A - low_A, np.inf)
    return excess_NA / span_A * np.array(data.contract.mask)


def _outliers(data: _Data) -> Iterator[Finding]:
    beyond_NA = _beyond(data)
    for index, name in enumerate(data.contract.names):
        far = np.flatnonzero(beyond_NA[:, index] > _OUTLIER_SPANS)
        if len(far):
            worst = far[np.argmax(beyond_NA[far, index])]
            yield Finding(
                WARNING,
                name,
                f"{len(far)} values lie more than {_OUTLIER_SPANS:g} spans outside, the farthest is "
                f"{data.actions_NA[worst, index]:.4g} at {data.place(worst)}. A teleoperation glitch or another unit?",
            )


def _clipped(data: _Data) -> Iterator[Finding]:
    """With statistics of the same data, 2 % are clipped; far more means that they are of other data."""
    if data.contract.rule == "mean_std":
        return
    share_A = (_beyond(data) > 1e-6).mean(0)
    for index in np.flatnonzero(share_A > _CLIPPED):
        low, high = (float(bound[index]) for bound in data.contract.bounds)
        yield Finding(
            WARNING,
            data.contract.names[index],
            f"{share_A[index]:.0%} of the values lie outside [{low:.3g}, {high:.3g}] and would be clipped: the "
            "statistics are of other data, or the units differ.",
        )


def _gripper(data: _Data) -> Iterator[Finding]:
    gripper = data.contract.gripper
    if gripper is None or gripper.delta:
        return
    name, values_N = data.contract.names[gripper.index], data.actions_NA[:, gripper.index]
    closed = float(gripper.is_closed(values_N).mean())
    if not _RARE <= closed <= 1 - _RARE:
        side = "open" if closed < 0.5 else "closed"
        yield Finding(
            WARNING, name, f"is {side} in {max(closed, 1 - closed):.1%} of the steps: the policy will never change it."
        )
    low, high = sorted((gripper.open, gripper.closed))
    slack = 0.05 * (high - low)
    outside = float(((values_N < low - slack) | (values_N > high + slack)).mean())
    if outside > 0:
        yield Finding(
            WARNING,
            name,
            f"{outside:.1%} of the values lie outside {gripper.closed:g} (closed) to {gripper.open:g} (open): another "
            "convention than the contract's.",
        )


def _fps(data: _Data) -> Iterator[Finding]:
    if data.timestamp_N is None or not data.contract.knows("fps"):
        return
    inside = np.diff(data.episode_N) == 0
    steps_N = np.diff(data.timestamp_N)[inside]
    if not len(steps_N):
        return
    found = 1 / max(float(np.median(steps_N)), 1e-9)
    if abs(found - data.contract.fps) > 0.02 * data.contract.fps:
        yield Finding(
            WARNING,
            "",
            f"the time stamps say {found:.3g} frames per second, the contract {data.contract.fps:g}: actions would be "
            "played at another speed than they were recorded.",
        )


def _absolute(data: _Data) -> Iterator[Finding]:
    """Where the contract says delta: values that follow the measured state, or are smooth and stay away from zero."""
    rotation = data.contract.rotation
    if rotation is None or not rotation.delta or len(data.actions_NA) < 3:
        return
    gripper = data.contract.gripper.index if data.contract.gripper else -1
    for index, name in enumerate(data.contract.names):
        if index != gripper and (reason := _looks_absolute(data, index)):
            yield Finding(
                WARNING,
                name,
                f"{reason}: it looks like a position, but the contract says that actions are changes. Convert the "
                "actions, or declare the rotation without _delta.",
            )


def _looks_absolute(data: _Data, index: int) -> str:
    values_N = data.actions_NA[:, index].astype(float)
    if values_N.std() == 0:
        return ""
    inside = np.diff(data.episode_N) == 0
    if data.state_NS is not None and index < data.state_NS.shape[1] and inside.any():
        reached_N = data.state_NS[1:, index][inside].astype(float)
        if reached_N.std() > 0 and np.corrcoef(values_N[:-1][inside], reached_N)[0, 1] > _FOLLOWS:
            return f"it equals dimension {index} of the next state"
    rough = np.diff(values_N)[inside].std() / values_N.std() if inside.any() else 1.0
    one_sided = np.mean(np.sign(values_N - 0.1 * np.abs(values_N).max() * np.sign(values_N.mean())))
    if rough < _SMOOTH and abs(one_sided) > 0.98:
        return "it changes little from step to step and is never near zero"
    return ""
