"""The tabletop as a suite for closed-loop evaluation.

What `pixelvla eval` asks of any environment, and what this one answers:

- ``suite.tasks``, ``suite.splits``, ``suite.axes``: what can be evaluated. ``variants`` has axes, chosen by the seed
  unless one is named.
- ``suite.make(task, split, axis=None)``: a `gymnasium.Env`. Episodes are chosen by ``env.reset(seed=n)`` alone: the
  same four values give
  the same episode, bit for bit, in any process.
- ``suite.contract``: what one action and one observation mean, to compare with the contract of a checkpoint.
- ``suite.machine``: what of this machine an episode may depend on, to note beside the results.
- on ``env.unwrapped``: ``step(action, observe=True)``, where ``observe=False`` leaves the picture out of the
  observation;
  ``observe()``, the observation now; ``instruction``; ``segmentation(size=None)``, ``names()`` and
  ``target_mask(size=None)``.
- in ``info``: ``instruction``, ``target``, ``success``, ``grasped``, ``wrong_object``, ``axis``, ``target_kind``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import spec
from .config import TabletopConfig

if TYPE_CHECKING:
    from .env import TabletopEnv

#: What one action and one observation mean; plain data.
CONTRACT: Mapping[str, Any] = MappingProxyType(
    {
        "names": spec.ACTION_NAMES,
        "low": spec.ACTION_LOW,
        "high": spec.ACTION_HIGH,
        "fps": spec.FPS,
        "control": "delta",
        "rotation": spec.ROTATION,
        "gripper_open": spec.GRIPPER_OPEN,
        "gripper_closed": spec.GRIPPER_CLOSED,
        "state_names": spec.STATE_NAMES,
        "camera": spec.CAMERA,
        "orientation": spec.IMAGE_ORIENTATION,
    }
)


@dataclass(frozen=True)
class TabletopSuite:
    """Makes the environments of one evaluation."""

    config: TabletopConfig = field(default_factory=TabletopConfig)
    name: str = "tabletop"
    camera: str = spec.CAMERA
    tasks: tuple[str, ...] = spec.TASKS
    splits: tuple[str, ...] = spec.SPLITS
    axes: tuple[str, ...] = spec.AXES
    contract: Mapping[str, Any] = field(default_factory=lambda: CONTRACT)

    @property
    def machine(self) -> Mapping[str, str]:
        """What of this machine pictures may depend on."""
        return {"gl": os.environ.get("MUJOCO_GL", "")}

    def make(self, task: str, split: str, axis: str | None = None) -> TabletopEnv:
        """Return an environment; close it when done.

        Raises:
            UserError: a task, split or axis that does not exist.
        """
        from .env import TabletopEnv

        return TabletopEnv(task, split, axis, self.config.image_size, self.config.max_steps)


def build(config: TabletopConfig | None = None) -> TabletopSuite:
    """Return the suite; the target of the component ``tabletop``."""
    return TabletopSuite(config or TabletopConfig())
