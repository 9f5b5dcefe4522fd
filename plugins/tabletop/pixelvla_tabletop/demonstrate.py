"""One demonstration: the expert plays an episode, disturbed on purpose, and says at every step what it would do.

The disturbance goes into what is executed, not into what is written down (DART, Laskey et al. 2017), so that the
recording shows how to come back from places the expert alone would never visit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .env import TabletopEnv
from .expert import Expert
from .spec import IMAGE_SIZE

#: Chance per step, at noise 1, of a push that has nothing to do with the action, and its size in metres and radians.
_PUSH_CHANCE, _PUSH, _PUSH_TURN = 0.15, 0.03, 0.2


@dataclass(frozen=True)
class Job:
    """Which episode to play."""

    task: str
    split: str
    axis: str | None
    seed: int
    image_size: int = IMAGE_SIZE
    noise: float = 0.0


@dataclass
class Demonstration:
    """One recorded episode of T steps.

    Attributes:
        images: uint8[T, H, W, 3]; states: float32[T, 8]; actions: float32[T, 7], the expert's undisturbed ones.
        target_masks: bool[T, H, W]; reference_masks: bool[T, H, W], None for tasks without a reference.
        facts: the environment's ``info`` at the start.
    """

    job: Job
    facts: dict[str, object]
    success: bool = False
    images: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    states: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    actions: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    target_masks: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    reference_masks: NDArray[np.bool_] | None = None


def demonstrate(job: Job) -> Demonstration:
    """Play one episode to its end and return it, successful or not."""
    env = TabletopEnv(job.task, job.split, job.axis, job.image_size)
    observation, info = env.reset(seed=job.seed)
    expert, rng = Expert(env), np.random.default_rng([job.seed, 7])
    images, states, actions, things = [], [], [], []
    done = success = False
    while not done:
        action = expert.act()
        images.append(observation["image"])
        states.append(observation["state"])
        actions.append(action)
        things.append(env.segmentation())
        observation, _, success, truncated, _ = env.step(disturbed(action, job.noise, rng))
        done = success or truncated
    seen = np.stack(things)
    demonstration = Demonstration(
        job=job,
        facts=info,
        success=success,
        images=np.stack(images),
        states=np.stack(states),
        actions=np.stack(actions),
        target_masks=seen == env.target_id,
        reference_masks=None if env.reference_id is None else seen == env.reference_id,
    )
    env.close()
    return demonstration


def disturbed(action: NDArray[np.float32], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return what is executed instead of ``action``.

    The error grows with the size of the motion, as a real robot's does, so that fine positioning stays possible; a
    rare push adds to it. The gripper's command is never disturbed.
    """
    moved = action.copy()
    draw, push = rng.standard_normal(6), rng.uniform(-1, 1, 6)
    moved[:3] += noise * np.linalg.norm(action[:3]) * draw[:3]
    moved[3:6] += noise * np.linalg.norm(action[3:6]) * draw[3:]
    if rng.random() < noise * _PUSH_CHANCE:
        moved[:3] += _PUSH * push[:3]
        moved[3:6] += _PUSH_TURN * push[3:]
    return moved
