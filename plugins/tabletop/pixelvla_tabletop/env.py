"""The tabletop as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pixelvla_core.errors import UserError, suggest

from . import spec
from .model import TIMESTEP, build
from .physics import mujoco
from .render import FrontRenderer
from .scene import Scene, sample_scene
from .tasks import Judge, Outcome

_SUBSTEPS = round(1 / spec.FPS / TIMESTEP)
_JOINTS = ("x", "y", "z", "roll", "pitch", "yaw", "finger_left", "finger_right")
#: The servo's target never runs further than this ahead of the gripper when something is in the way (metres, radians).
_LEAD = np.array([0.05, 0.05, 0.05, 0.3, 0.3, 0.3])


class TabletopEnv(gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """A floating parallel-jaw gripper over a table with a few objects and a drawer.

    Observation: ``image`` uint8[size, size, 3] of the camera `spec.CAMERA` and ``state`` float32[8]
    (`spec.STATE_NAMES`). Action: float32[7], `spec.ACTION_NAMES`; deltas are clipped to `spec.ACTION_LOW` and
    `spec.ACTION_HIGH`, added to the target of position servos and reached within 1 / `spec.FPS` seconds. Reward is 1
    on the step that succeeds, which also ends the episode.

    Args:
        task: one of `spec.TASKS`, or several separated by "+" (or "all"), one of which each reset draws.
        split: one of `spec.SPLITS`.
        axis: only for split ``variants``: one of `spec.AXES`; None cycles through them with the seed.
        image_size: pixels per side of ``image``.
        max_steps: steps until an episode is truncated.

    Raises:
        UserError: a task, split or axis that does not exist.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": spec.FPS}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        task: str = "all",
        split: str = "train",
        axis: str | None = None,
        image_size: int = spec.IMAGE_SIZE,
        max_steps: int = spec.MAX_STEPS,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.tasks = spec.TASKS if task == "all" else tuple(task.split("+"))
        for name in self.tasks:
            _check("task", name, spec.TASKS)
        _check("split", split, spec.SPLITS)
        if axis is not None:
            _check("axis", axis, spec.AXES)
            if split != "variants":
                raise UserError(
                    f"axis={axis!r} was given with split={split!r}. Only the split 'variants' has axes; "
                    "drop one of the two."
                )
        self.split, self.axis, self.image_size, self.max_steps = split, axis, image_size, max_steps
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Dict(  # type: ignore[assignment]
            {
                "image": gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "state": gym.spaces.Box(-np.inf, np.inf, (len(spec.STATE_NAMES),), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(
            np.array(spec.ACTION_LOW, np.float32), np.array(spec.ACTION_HIGH, np.float32)
        )
        self._loaded: Scene | None = None
        self._steps = 0
        self.outcome = Outcome()
        self._renderers: dict[int, FrontRenderer] = {}

    # -- Gymnasium -----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start the episode that belongs to ``seed``; without one, the next episode of the environment's own stream.

        ``options={"task": name}`` chooses the task of this episode; ``options={"observe": False}`` leaves the picture
        out.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        options = options or {}
        task = options.get("task") or self.tasks[seed % len(self.tasks)]
        _check("task", task, spec.TASKS)
        self.load(sample_scene(task, self.split, self.axis, seed))
        return self.observe() if options.get("observe", True) else {"state": self.state()}, self._info()

    def step(
        self, action: NDArray[np.float32], observe: bool = True
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Advance by 1 / `spec.FPS` seconds.

        Args:
            action: float[7].
            observe: False skips the picture (the observation then holds only ``state``): policies that act in chunks
            look
                only every few steps, and the picture is the larger part of a step's cost.
        """
        self._move(np.asarray(action, np.float64))
        self._steps += 1
        self.outcome = self._judge.after_step(self.data)
        success = self.outcome.success
        observation = self.observe() if observe else {"state": self.state()}
        return observation, float(success), success, self._steps >= self.max_steps and not success, self._info()

    def render(self, size: int | None = None) -> NDArray[np.uint8]:
        """Return the picture now, ``uint8[size, size, 3]``; ``size`` defaults to ``image_size``."""
        return self._renderer(size).image(self.data)

    def close(self) -> None:
        """Free the graphics memory."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    # -- beyond Gymnasium ----------------------------------------------------------------------------------------------

    def load(self, scene: Scene) -> None:
        """Start the given episode, which need not come from `sample_scene`."""
        self.close()
        self._loaded = scene
        self.model = build(scene)
        self.data = mujoco.MjData(self.model)
        for name, value in zip(_JOINTS, (*scene.start, spec.FINGER_TRAVEL, spec.FINGER_TRAVEL), strict=True):
            self.data.joint(name).qpos = value
        self.data.joint("drawer").qpos = scene.drawer_open
        self._target = np.array(scene.start)
        # Servos have the joints' names; their order in the model is its own affair.
        self._servos = [self.model.actuator(name).id for name in _JOINTS]
        self.data.ctrl[self._servos] = (*scene.start, spec.FINGER_TRAVEL, spec.FINGER_TRAVEL)
        mujoco.mj_forward(self.model, self.data)
        self._judge = Judge(self.model, self.data, scene)
        self.outcome = Outcome()
        self._steps = 0

    @property
    def scene(self) -> Scene:
        """The present episode as it was drawn."""
        if self._loaded is None:
            raise gym.error.ResetNeeded("call reset() before using the environment")
        return self._loaded

    def observe(self) -> dict[str, NDArray[Any]]:
        """Return the observation now."""
        return {"image": self.render(), "state": self.state()}

    def state(self) -> NDArray[np.float32]:
        """Return `spec.STATE_NAMES` now, metres and radians."""
        return np.array([self.data.joint(name).qpos[0] for name in _JOINTS], np.float32)

    @property
    def instruction(self) -> str:
        """What the robot is told to do in this episode."""
        return self.scene.instruction

    def segmentation(self, size: int | None = None) -> NDArray[np.int32]:
        """Return which thing is seen at each pixel, ``int32[size, size]``: keys of `names`, 0 for everything else."""
        geoms = self._renderer(size).geoms(self.data)
        return self._thing_of_geom()[geoms]

    def names(self) -> dict[int, str]:
        """Return id -> noun phrase of everything `segmentation` tells apart."""
        return dict(enumerate([item.phrase for item in self.scene.items] + ["drawer", "cabinet", "gripper"], start=1))

    @property
    def target_id(self) -> int:
        """The id, in `segmentation`, of the thing the task is about."""
        return 1 + (len(self.scene.items) if self.scene.target is None else self.scene.target)

    @property
    def reference_id(self) -> int | None:
        """The id of the thing to move the target to; None where a task has none."""
        return None if self.scene.reference is None else 1 + self.scene.reference

    @property
    def held(self) -> str | None:
        """Name of the body that both fingers press on: ``object0`` ..., ``drawer``; None if there is none."""
        body = self._judge.held_body(self.data)
        return None if body is None else self.model.body(body).name

    def target_mask(self, size: int | None = None) -> NDArray[np.bool_]:
        """Return the pixels of the target that are visible now, ``bool[size, size]``."""
        return self.segmentation(size) == self.target_id

    # -- inside --------------------------------------------------------------------------------------------------------

    def _move(self, action: NDArray[np.float64]) -> None:
        """Slide the servo targets evenly to where the action wants them, so that motion is smooth within a step."""
        if action.shape != (7,) or not np.isfinite(action).all():
            raise UserError(
                f"an action of shape {action.shape} and values {action} was given; expected 7 finite numbers: "
                f"{', '.join(spec.ACTION_NAMES)}."
            )
        action = np.clip(action, spec.ACTION_LOW, spec.ACTION_HIGH)
        here = np.array([self.data.joint(name).qpos[0] for name in _JOINTS[:6]])
        self._target = np.clip(self._target + action[:6], here - _LEAD, here + _LEAD)
        self._target = np.clip(self._target, spec.WORKSPACE_LOW, spec.WORKSPACE_HIGH)
        finger = action[6] * spec.FINGER_TRAVEL
        before, after = self.data.ctrl[self._servos], np.array([*self._target, finger, finger])
        for substep in range(1, _SUBSTEPS + 1):
            self.data.ctrl[self._servos] = before + (after - before) * (substep / _SUBSTEPS)
            mujoco.mj_step(self.model, self.data)

    def _info(self) -> dict[str, Any]:
        scene, outcome = self.scene, self.outcome
        return {
            "instruction": scene.instruction,
            "task": scene.task,
            "split": scene.split,
            "axis": scene.axis,
            "seed": scene.seed,
            "target": scene.target_phrase,
            "reference": scene.reference_phrase,
            "target_kind": scene.target_kind,
            "success": outcome.success,
            "grasped": outcome.grasped,
            "wrong_object": outcome.wrong_object,
        }

    def _renderer(self, size: int | None) -> FrontRenderer:
        size = size or self.image_size
        if size not in self._renderers:
            self.scene  # noqa: B018 - raises before the first reset
            self._renderers[size] = FrontRenderer(self.model, size)
        return self._renderers[size]

    def _thing_of_geom(self) -> NDArray[np.int32]:
        """Thing id of each geom; the last entry answers geom -1, the background."""
        count = len(self.scene.items)
        things = {f"object{i}": 1 + i for i in range(count)} | {"drawer": count + 1, "cabinet": count + 2}
        things |= dict.fromkeys(("carriage", "hand", "finger_left", "finger_right"), count + 3)
        bodies = [self.model.body(self.model.geom_bodyid[g]).name for g in range(self.model.ngeom)]
        return np.array([*(things.get(name, 0) for name in bodies), 0], np.int32)


def _check(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UserError(f"The tabletop has no {what} {name!r}.{suggest(name, known)} It has: {', '.join(known)}.")
