"""A tiny SmolVLA of LeRobot's own classes, written to disk by LeRobot itself, and observations for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pixelvla_smolvla.config import Sizes
from pixelvla_smolvla.untrained import untrained_policy, write_vlm

from pixelvla_core.api import Sample

CAMERAS = ("front", "wrist")
DIM, HORIZON = 7, 5


def statistics() -> dict[str, dict[str, torch.Tensor]]:
    """What LeRobot keeps of a data set, far from zero mean and unit deviation."""
    random = np.random.default_rng(5)
    found = {}
    for key in ("observation.state", "action"):
        mean, std = random.normal(size=DIM), random.uniform(0.5, 2.0, DIM)
        values = {"mean": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
        values |= {"q01": mean - 2 * std, "q99": mean + 2 * std}
        found[key] = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
    return found


def write_policy(folder: Path, cameras: tuple[str, ...] = CAMERAS, **changes: Any) -> Path:
    """A checkpoint as LeRobot writes it: policy, processors, and the SmolVLM's files where it looks for them."""
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

    policy = untrained_policy(Sizes(), cameras, vlm_model_name=str(folder / "vlm"), **changes)
    with torch.no_grad():
        for parameter in policy.parameters():  # biases and norms as well, which start at 0 and 1
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    policy.save_pretrained(folder)
    write_vlm(Sizes(), folder / "vlm")
    for processor in make_smolvla_pre_post_processors(policy.config, statistics()):
        processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function from changes of LeRobot's configuration to a checkpoint's folder; equal changes share one."""
    made: dict[str, Path] = {}

    def make(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in made:
            made[key] = write_policy(tmp_path_factory.mktemp("smolvla"), **changes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def folder(policy_folder: Callable[..., Path]) -> Path:
    """A checkpoint with two cameras."""
    return policy_folder()


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Three observations with words of different lengths, states, and chunks of which the last ends early."""
    return [sample(seed, text) for seed, text in enumerate(("pick the cup", "open", "put it near the blue plate"))]


def sample(seed: int, text: str, cameras: tuple[str, ...] = CAMERAS) -> Sample:
    random = np.random.default_rng(seed)
    return Sample(
        images={camera: random.integers(0, 256, (90, 120, 3), dtype=np.uint8) for camera in cameras},
        instruction=text,
        state=random.normal(size=DIM).astype(np.float32),
        actions=random.normal(size=(HORIZON, DIM)).astype(np.float32),
        action_valid=np.arange(HORIZON) < HORIZON - seed,
        key=f"sample/{seed}",
    )


class LeRobot:
    """The same checkpoint through LeRobot's own classes alone."""

    def __init__(self, folder: Path) -> None:
        from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
        from lerobot.processor import PolicyProcessorPipeline

        with contextlib.redirect_stdout(io.StringIO()):
            self.policy = SmolVLAPolicy.from_pretrained(folder).float()
        self.preprocess = PolicyProcessorPipeline.from_pretrained(folder, "policy_preprocessor.json")

    def batch(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        """What LeRobot makes of the samples; their actions are taken as they are, as without an action contract."""
        cameras = samples[0].images
        images = {
            f"observation.images.{camera}": torch.from_numpy(np.stack([s.images[camera] for s in samples]))
            .permute(0, 3, 1, 2)
            .float()
            / 255
            for camera in cameras
        }
        state = torch.from_numpy(np.stack([s.state for s in samples]))
        found = self.preprocess({**images, "observation.state": state, "task": [s.instruction for s in samples]})
        found["action"] = torch.from_numpy(np.stack([s.actions for s in samples]))
        found["action_is_pad"] = ~torch.from_numpy(np.stack([s.action_valid for s in samples]))
        return found


@pytest.fixture(scope="session")
def lerobot() -> Callable[[Path], LeRobot]:
    """A function that opens a checkpoint with LeRobot."""
    return LeRobot
