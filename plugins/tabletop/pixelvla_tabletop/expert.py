"""A scripted expert that sees the whole state.

Its action is a function of the present state alone: no phases are remembered, so a policy without memory can copy
it. Where to go follows from where the gripper is: a funnel over the target lets it come down only as far as it is
centred.
"""

from __future__ import annotations

import math
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from .env import TabletopEnv
from .furniture import HANDLE_TOP, HANDLE_X, HANDLE_Z
from .scene import Scene
from .spec import FINGER_TRAVEL, GRIPPER_CLOSED, GRIPPER_OPEN

#: Metres and radians per step.
SPEED = 0.03
TURN = 0.12
#: Closer than this to the grasp the fingers close.
_CENTRED, _DOWN = 0.008, 0.008
#: Beyond this distance the gripper stays above everything; in between it comes down on a slope.
_FUNNEL_NEAR, _FUNNEL_FAR = 0.010, 0.030
_CLEARANCE = 0.028
_CARRY = 0.06


class Expert:
    """The scripted expert of one environment.

    Args:
        env: a `TabletopEnv`, or a wrapper around one, after `reset`.
        scene: what to do instead of the environment's own task: its scene with another task or target.
    """

    def __init__(self, env: gym.Env[Any, Any], scene: Scene | None = None) -> None:
        self._env = cast(TabletopEnv, env.unwrapped)
        self._given = scene

    @property
    def _scene(self) -> Scene:
        return self._given or self._env.scene

    def act(self) -> NDArray[np.float32]:
        """Return the action for the present state, float32[7]."""
        env = self._env
        if env.outcome.grasped and self._grip() < 0.9:
            goal, yaw, gripper = self._carry(), env.state()[5], GRIPPER_CLOSED
        else:
            grasp, top, yaw = self._grasp()
            goal, gripper = self._approach(grasp, top)
        return self._action(goal, float(yaw), gripper)

    # -- where to go ---------------------------------------------------------------------------------------------------

    def _grasp(self) -> tuple[NDArray[np.float64], float, float]:
        """Return the tool point of the grasp, the height of the thing's top and the gripper's yaw there."""
        env, scene = self._env, self._scene
        if scene.target is None:
            at = np.array([HANDLE_X - env.data.joint("drawer").qpos[0], scene.cabinet_y, HANDLE_Z])
            return at, HANDLE_TOP, 0.0
        body = env.data.body(f"object{scene.target}")
        shape = scene.items[scene.target].shape
        grasp = body.xpos.copy()
        top = grasp[2] + shape.half_height
        grasp[2] = max(grasp[2] - 0.004, 0.010)
        yaw = math.atan2(body.xmat[3], body.xmat[0])
        return grasp, top, _nearest_turn(yaw, shape.yaw_period)

    def _approach(self, grasp: NDArray[np.float64], top: float) -> tuple[NDArray[np.float64], float]:
        here = self._env.state()[:3].astype(np.float64)
        off = float(np.hypot(*(grasp - here)[:2]))
        rise = np.clip((off - _FUNNEL_NEAR) / (_FUNNEL_FAR - _FUNNEL_NEAR), 0, 1) * (top + _CLEARANCE - grasp[2])
        goal = np.array([grasp[0], grasp[1], grasp[2] + rise])
        ready = off < _CENTRED and abs(here[2] - grasp[2]) < _DOWN
        return goal, GRIPPER_CLOSED if ready else GRIPPER_OPEN

    def _carry(self) -> NDArray[np.float64]:
        """Where to take what is held."""
        env, scene = self._env, self._scene
        here = env.state()[:3].astype(np.float64)
        if scene.task == "move_near" and scene.target is not None:
            return here + self._step_near(scene.target)
        way = {"pick": (0, 0, 1), "open_drawer": (-1, 0, 0), "close_drawer": (1, 0, 0)}[scene.task]
        return here + SPEED * np.array(way)

    def _step_near(self, index: int) -> NDArray[np.float64]:
        """Up until clear of the neighbours' tops, then sideways; the nearer to that height, the faster."""
        env, scene = self._env, self._scene
        target = env.data.body(f"object{index}").xpos
        reference = env.data.body(f"object{scene.reference}").xpos
        way = (reference - target)[:2]
        gap = float(np.linalg.norm(way))
        height = target[2] - scene.items[index].shape.half_height
        pace = np.clip((height - 0.03) / 0.03, 0, 1)
        sideways = way / max(gap, 1e-6) * np.clip(gap - 0.05, 0, SPEED) * pace
        return np.array([*sideways, np.clip(_CARRY - height, -SPEED, SPEED)])

    # -- how to get there ----------------------------------------------------------------------------------------------

    def _grip(self) -> float:
        """How open the fingers are, 0..1."""
        return float(self._env.state()[6:].mean() / FINGER_TRAVEL)

    def _action(self, goal: NDArray[np.float64], yaw: float, gripper: float) -> NDArray[np.float32]:
        state = self._env.state().astype(np.float64)
        step = goal - state[:3]
        distance = float(np.linalg.norm(step))
        step *= min(1.0, SPEED / max(distance, 1e-9))
        turn = np.clip(np.array([0.0, 0.0, yaw]) - state[3:6], -TURN, TURN)
        return np.array([*step, *turn, gripper], np.float32)


def _nearest_turn(yaw: float, period: float) -> float:
    """The turn, nearest to none, at which a shape of that symmetry looks as at ``yaw``; none for a round one."""
    return 0.0 if period == 0 else (yaw + period / 2) % period - period / 2
