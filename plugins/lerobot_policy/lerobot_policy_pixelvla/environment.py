"""pixelvla's environments for LeRobot's tools, with the oracle user, who marks the target on the first image.

Episodes, prompts and masks are those of `pixelvla eval` with the same task, split, prompt and seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

from pixelvla_core.api import PluginManager, UserError, configure
from pixelvla_core.evaluate.episode import Rollout
from pixelvla_core.evaluate.records import Job

from .observation import ACTION, IMAGES, STATE, to_observation

PREFIX = "observation."
"""LeRobot puts it before the keys of an environment's observation."""
PROMPT_SHAPES = {"point": ("points", (1, 3)), "box": ("boxes", (1, 4)), "line": ("lines", (1, 2, 2))}
"""What the oracle user gives of each kind: the name of its key and its shape."""


@EnvConfig.register_subclass("pixelvla")
@dataclass
class PixelVLAEnvConfig(EnvConfig):
    """Options of the environment `pixelvla`.

    Attributes:
        suite: An environment that `pixelvla plugins` lists. options: Its options, such as {max_steps: 40}.
        task: One of its tasks, several with commas between them, or "all".
        split: One of its splits.
        prompt: What the user gives on the first observation: none, point, line, box, mask, or a mixture: point+box.
        segmenter: What makes a mask of it; "oracle" is the environment's exact mask.
        tracker: What carries the mask on.
        fps, features, features_map: Taken from the suite.
    """

    task: str | None = "all"
    suite: str = "tabletop"
    options: dict[str, Any] = field(default_factory=dict)
    split: str = "visual_matching"
    prompt: str = "none"
    segmenter: str = "oracle"
    tracker: str = "hold"

    def __post_init__(self) -> None:
        space: Any = PixelVLAEnv(self, self.tasks[0]).observation_space
        camera, contract = self.world.camera, self.world.contract
        self.fps = int(contract["fps"])
        self.features = {
            f"pixels/{camera}": PolicyFeature(type=FeatureType.VISUAL, shape=space["pixels"][camera].shape),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=space["agent_pos"].shape),
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(len(contract["names"]),)),
        }
        self.features_map = {f"pixels/{camera}": f"{IMAGES}{camera}", "agent_pos": STATE, ACTION: ACTION}

    @cached_property
    def world(self) -> Any:
        """The suite, which makes the environments."""
        return self.part("environment", self.suite, self.options)

    @property
    def tasks(self) -> list[str]:
        """What is to be run, each a group of its own in LeRobot's table."""
        given = self.task or "all"
        return list(self.world.tasks) if given == "all" else [name.strip() for name in given.split(",")]

    @property
    def gym_kwargs(self) -> dict:
        """None: environments are made by the suite."""
        return {}

    def part(self, kind: str, name: str, options: dict[str, Any] | None = None) -> Any:
        """Build a part that a plugin of pixelvla offers."""
        component = PluginManager.load().registry.get(kind, name)
        return component.build(configure(component, options or {}))

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """{suite: {number of the task: environments of it}}."""
        side_by_side = use_async_envs and n_envs > 1
        vector: Any = partial(AsyncVectorEnv, context="forkserver") if side_by_side else SyncVectorEnv
        made: dict[int, VectorEnv] = {
            number: vector([partial(PixelVLAEnv, self, task)] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
            for number, task in enumerate(self.tasks)
        }
        return {self.suite: made}


class PixelVLAEnv(gym.Env):
    """One task of a suite as LeRobot's tools look at it: pictures, state, and what the user marked.

    Args:
        config: Suite, split, and what the user does.
        task: Which one.

    Raises:
        UserError: the suite has no such task or split, or there is no such prompt.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, config: PixelVLAEnvConfig, task: str) -> None:
        self.config, self.task = config, task
        suite = config.world
        self.env = suite.make(task, config.split)
        self.camera, self.metadata = suite.camera, {**self.metadata, "render_fps": int(suite.contract["fps"])}
        self.render_mode = "rgb_array"
        self._max_episode_steps = int(getattr(self.env.unwrapped, "max_steps", 1000))
        self._segmenter = None if config.segmenter == "oracle" else config.part("segmenter", config.segmenter)
        self.action_space = self.env.action_space
        self.observation_space = self._space()
        self._rollout: Rollout | None = None

    @property
    def task_description(self) -> str:
        """The instruction of this episode."""
        return self._running.instruction

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict[str, Any]]:
        """Start the episode that belongs to ``seed``; without one, the next of the environment's own stream."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        self._rollout = Rollout(
            job=Job(task=self.task, split=self.config.split, prompt=self.config.prompt, episode=0, seed=number),
            env=self.env,
            camera=self.camera,
            segmenter=self._segmenter,
            tracker=self.config.part("tracker", self.config.tracker),
            step_limit=self._max_episode_steps,
        )
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict[str, Any]]:
        """One action, float[A], in the units of the suite; success ends the episode."""
        rollout = self._running
        rollout.act(np.asarray(action)[None])
        success = bool(rollout.info["success"])
        return self._observation(), float(success), success, rollout.done and not success, {"is_success": success}

    def render(self) -> np.ndarray:
        """The picture now, uint8[H, W, 3]."""
        return np.asarray(self.env.render())

    def close(self) -> None:
        """Free what the suite's environment holds."""
        self.env.close()

    @property
    def _running(self) -> Rollout:
        if self._rollout is None:
            raise gym.error.ResetNeeded("call reset() before using the environment")
        return self._rollout

    def _space(self) -> gym.spaces.Dict:
        """Of fixed shapes, as environments side by side need them."""
        image, state = (self.env.observation_space[name] for name in ("image", "state"))
        spaces: dict[str, gym.Space] = {
            name: gym.spaces.Box(-np.inf, np.inf, shape, np.float32) for name, shape in self._marks().items()
        }
        for name in self._masks():
            spaces[name] = gym.spaces.MultiBinary((1, *image.shape[:2]))
        pixels = gym.spaces.Dict({self.camera: image})
        return gym.spaces.Dict({"pixels": pixels, "agent_pos": state, **spaces})

    def _kinds(self) -> list[str]:
        kinds = [] if self.config.prompt == "none" else self.config.prompt.split("+")
        if unknown := set(kinds) - {*PROMPT_SHAPES, "mask"}:
            raise UserError(
                f"--env.prompt is {self.config.prompt!r}; {', '.join(sorted(unknown))} is no kind of prompt. Expected "
                "none, point, line, box, mask, or a mixture of kinds such as point+box."
            )
        return kinds

    def _marks(self) -> dict[str, tuple[int, ...]]:
        shapes = (PROMPT_SHAPES[kind] for kind in self._kinds() if kind in PROMPT_SHAPES)
        return {f"prompts.{self.camera}.{name}": shape for name, shape in shapes}

    def _masks(self) -> list[str]:
        kinds = self._kinds()
        drawn = [f"prompts.{self.camera}.masks"] if "mask" in kinds else []
        return [*drawn, f"masks.{self.camera}"] if kinds else []

    def _observation(self) -> dict[str, Any]:
        """What is seen now; without a visible target nothing is marked, which is NaN and an empty mask."""
        sample = self._running.look()
        image = sample.images[self.camera]
        given = to_observation(sample.prompts, sample.masks)
        found = {name.removeprefix(PREFIX): value.numpy() for name, value in given.items()}
        marks = {name: found.get(name, np.full(shape, np.nan)) for name, shape in self._marks().items()}
        masks = {name: found.get(name, np.zeros((1, *image.shape[:2]))) for name in self._masks()}
        return {
            "pixels": {self.camera: image},
            "agent_pos": np.asarray(sample.state, np.float32),
            **{name: np.asarray(value, np.float32) for name, value in marks.items()},
            **{name: np.asarray(value, np.int8) for name, value in masks.items()},
        }
