"""A tiny world for tests of the evaluation: walk onto the green square. Importable by worker processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

SIZE = 32
SIDE = 6


@dataclass(frozen=True)
class ReachingConfig:
    """Seeds at which things go wrong; ``once`` is where a worker leaves a mark that it died or hung before."""

    raises: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()
    once: str = ""


class Reaching(gym.Env):
    """Walk to the square: an action, float[2], is the way in pixels, at most 4 each."""

    def __init__(self, task: str, split: str, config: ReachingConfig) -> None:
        self.task, self.split, self.config = task, split, config
        self.rendered = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        words = [seed, len(self.task), len(self.split)]
        self.place, self.target = np.random.default_rng(words).integers(0, SIZE - SIDE, (2, 2)).astype(float)
        self.steps = 0
        return self.observe(), {**self._info(), "instruction": f"{self.task} to the square", "axis": f"axis{seed % 2}"}

    def step(self, action, observe: bool = True):
        self._misbehave()
        self.place = np.clip(self.place + np.clip(action, -4, 4), 0, SIZE - SIDE)
        self.steps += 1
        done = self._info()["success"]
        observation = self.observe() if observe else {"state": self.place.copy()}
        return observation, float(done), done, self.steps >= 20 and not done, self._info()

    def observe(self):
        self.rendered += 1
        image = np.full((SIZE, SIZE, 3), 200, np.uint8)
        image[self.target_mask()] = (0, 160, 0)
        return {"image": image, "state": self.place.copy()}

    def target_mask(self):
        mask = np.zeros((SIZE, SIZE), bool)
        x, y = self.target.astype(int)
        mask[y : y + SIDE, x : x + SIDE] = True
        return mask

    def _info(self):
        near = bool(np.abs(self.place - self.target).max() < 1)
        return {"success": near, "grasped": near}

    def _misbehave(self) -> None:
        if self.seed in self.config.raises:
            raise RuntimeError("the square ran away")
        if self.seed in (*self.config.dies, *self.config.hangs) and not self._did_before():
            if self.seed in self.config.dies:
                os._exit(3)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(10_000)

    def _did_before(self) -> bool:
        if not self.config.once:
            return False
        try:
            os.close(os.open(f"{self.config.once}-{self.seed}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return True
        return False


class Suite:
    """Two tasks, two splits."""

    tasks = ("walk", "stroll")
    splits = ("near", "further")

    def __init__(self, config: ReachingConfig) -> None:
        self.config = config

    def make(self, task: str, split: str) -> Reaching:
        return Reaching(task, split, self.config)


class Seeker:
    """Finds the square by its colour, or by the mask if it is given one; remembers nothing. Chunks of four."""

    camera = "front"

    def __init__(self, blind: bool = False, breaks: bool = False) -> None:
        self.blind, self.breaks = blind, breaks

    def act(self, samples) -> np.ndarray:
        if self.breaks:
            raise ValueError("shapes do not fit")
        return np.stack([self._chunk(sample) for sample in samples])

    def _chunk(self, sample) -> np.ndarray:
        mask = sample.masks[self.camera][0] if sample.masks else sample.images[self.camera][..., 0] < 100
        if self.blind and not sample.masks:
            return np.zeros((4, 2))
        rows, columns = np.nonzero(mask)
        goal, place, moves = np.array([columns.min(), rows.min()]), sample.state, []
        for _ in range(4):
            moves.append(np.clip(goal - place, -4, 4))
            place = place + moves[-1]
        return np.stack(moves)


def load_seeker(**options) -> Seeker:
    return Seeker(**options)
