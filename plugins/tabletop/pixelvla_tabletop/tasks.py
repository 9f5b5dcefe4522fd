"""When an episode has succeeded, and what the gripper holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .physics import mujoco
from .scene import Scene

#: Metres the target must have risen, and for how many steps in a row.
LIFT = 0.05
#: Metres between the centres of target and reference.
NEAR = 0.10
OPEN = 0.06
CLOSED = 0.01
STEPS_HELD = 2


@dataclass(frozen=True)
class Outcome:
    """What is known after a step: success, the target is held now, another object was held at some time."""

    success: bool = False
    grasped: bool = False
    wrong_object: bool = False


class Judge:
    """Watches one episode and decides about it."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, scene: Scene) -> None:
        self._model, self._scene = model, scene
        self._fingers = tuple(model.body(name).id for name in ("finger_left", "finger_right"))
        self._objects = [model.body(f"object{i}").id for i in range(len(scene.items))]
        name = "drawer" if scene.target is None else f"object{scene.target}"
        self._target = model.body(name).id
        self._start = data.xpos[self._target].copy()
        self._held_steps = 0
        self._wrong = False

    def after_step(self, data: mujoco.MjData) -> Outcome:
        """Look at the state after one control step; call it once per step."""
        held = self.held_body(data)
        self._wrong |= held in self._objects and held != self._target
        self._held_steps = self._held_steps + 1 if self._reached(data) else 0
        return Outcome(
            success=self._held_steps >= STEPS_HELD,
            grasped=held == self._target,
            wrong_object=bool(self._wrong),
        )

    def held_body(self, data: mujoco.MjData) -> int | None:
        """Return the body that both fingers press on, if any."""
        pairs = self._model.geom_bodyid[data.contact.geom]
        touched = [set(pairs[(pairs == finger).any(1)].ravel()) for finger in self._fingers]
        common = (touched[0] & touched[1]) - set(self._fingers) - {0}
        return int(min(common)) if common else None

    def _reached(self, data: mujoco.MjData) -> bool:
        task = self._scene.task
        if task == "open_drawer":
            return bool(data.joint("drawer").qpos[0] > OPEN)
        if task == "close_drawer":
            return bool(data.joint("drawer").qpos[0] < CLOSED)
        if self._scene.reference is None:
            return self._lifted(data)
        return self._near(data.xpos[self._target], data.xpos[self._objects[self._scene.reference]])

    def _lifted(self, data: mujoco.MjData) -> bool:
        """The target is up and no other object is: lifting a heap is not picking the one that was named."""
        heights = data.xpos[self._objects, 2] - [item.shape.half_height for item in self._scene.items]
        up = heights > LIFT
        return bool(up[self._scene.target] and up.sum() == 1)

    def _near(self, target: NDArray[np.float64], reference: NDArray[np.float64]) -> bool:
        gap = np.linalg.norm(target - reference)
        return bool(gap < NEAR and gap < np.linalg.norm(target - self._start))
