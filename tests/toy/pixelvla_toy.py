"""A dataset of images that are drawn on the spot: a bright square on noise; the actions point at its place."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from pixelvla_third_party.adapter import ThirdPartyBackbone, build
from pixelvla_third_party.config import ThirdPartyConfig
from torch import nn

from pixelvla_core.api import BackboneSpec, Component, Sample, hookimpl
from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.contract.statistics import Statistics
from pixelvla_core.model.config import OverlayConfig
from pixelvla_core.prompts import Point

SIDE, EPISODE = 40, 10


@dataclass(kw_only=True)
class SquaresConfig:
    """Options.

    Attributes:
        frames: How many samples there are.
        nan_at: Index of a sample whose actions are NaN; -1 for none.
        prompts: Share of samples with a point and a mask on the square.
        words: Wordings of the instruction, drawn per sample.
        fps, orientation, rule: What the action contract says.
    """

    frames: int = 48
    nan_at: int = -1
    prompts: float = 0.5
    words: list[str] = field(default_factory=lambda: ["touch the square", "go to the bright square"])
    fps: float = 5.0
    orientation: str = "upright"
    rule: str = "q99"


class Squares:
    camera = "front"

    def __init__(self, config: SquaresConfig) -> None:
        self.config, self.fps = config, config.fps
        self.fingerprint = hashlib.sha256(repr(config).encode()).hexdigest()

    def __len__(self) -> int:
        return self.config.frames

    def place(self, index: int) -> np.ndarray:
        return np.random.default_rng([7, index]).random(2)

    def image(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = (self.place(index) * (SIDE - 8)).astype(int)
        image = np.random.default_rng([8, index]).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y : y + 8, x : x + 8] = True
        image[mask] = (250, 200, 50)
        return image, mask

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        words = self.config.words[int(rng.integers(len(self.config.words)))]
        prompted = rng.random() < self.config.prompts
        image, mask = self.image(index)
        x, y = self.place(index)
        actions = np.tile(np.array([x, y, 0, 0, 0, x - y, 1.0], np.float32), (horizon, 1))
        if index == self.config.nan_at:
            actions[:] = np.nan
        return Sample(
            images={"front": image} if images else {},
            instruction=words,
            prompts={"front": (Point(0.1 + 0.8 * x, 0.1 + 0.8 * y),)} if prompted else {},
            masks={"front": mask[None]} if prompted else {},
            actions=actions,
            action_valid=np.arange(horizon) < EPISODE - index % EPISODE,
            key=self.frame_key(index),
        )

    def frame_key(self, index: int) -> str:
        return f"squares/{index}"

    def contract(self) -> ActionContract:
        low, high = np.array([0, 0, -1, -1, -1, -1, 0.0]), np.ones(7)
        statistics = Statistics(mean=(low + high) / 2, std=high / 4, min=low, max=high, q01=low, q99=high)
        names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
        mask = (True,) * 6 + (False,)
        facts = {"fps": self.fps, "camera": self.camera, "orientation": self.config.orientation, "dataset": "squares"}
        return ActionContract(names=names, statistics=statistics, mask=mask, rule=self.config.rule, **facts)


def stated(config: ThirdPartyConfig, *, weights: str | None, **how: str | None) -> ThirdPartyBackbone:
    """The example backbone with statistics of several datasets, as a published base carries them."""
    adapter = build(config, weights=weights, **how)
    adapter.statistics = {"wide": entry(2.0), "near": entry(0.5), "narrow": entry(0.5, dim=5)}
    return adapter


def entry(size: float, dim: int = 7) -> dict[str, dict]:
    values = {"mean": 0.0, "std": size / 2, "min": -size, "max": size, "q01": -size, "q99": size}
    return {"action": {name: [value] * dim for name, value in values.items()}}


@hookimpl
def pixelvla_backbones() -> list[Component]:
    config = "pixelvla_third_party.config:ThirdPartyConfig"
    return [Component(name="stated", target="pixelvla_toy:stated", config=config, provides=frozenset({"hidden"}))]


class Trembling(nn.Module):
    """Paints, after a fashion: shakes the image by what it draws from every global generator."""

    paints = True

    def __init__(self, config: OverlayConfig, spec: BackboneSpec) -> None:
        super().__init__()

    def paint(self, sample: Sample) -> Sample:
        shift = int(torch.randint(9, ())) + int(np.random.randint(9)) + random.randrange(9)
        return replace(sample, images={name: np.roll(image, shift, 1) for name, image in sample.images.items()})


@hookimpl
def pixelvla_prompt_encoders() -> list[Component]:
    config = "pixelvla_core.model.config:OverlayConfig"
    return [Component(name="trembling", target="pixelvla_toy:Trembling", config=config)]


@hookimpl
def pixelvla_datasets() -> list[Component]:
    return [Component(name="squares", target="pixelvla_toy:Squares", config="pixelvla_toy:SquaresConfig")]
