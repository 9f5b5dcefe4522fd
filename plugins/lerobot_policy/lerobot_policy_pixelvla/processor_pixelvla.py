"""LeRobot's processors for the policy: they move tensors and change no value; the checkpoint normalises by itself."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_policy_processor_steps, make_policy_processor_pipelines

from .configuration_pixelvla import PixelVLAConfig


def make_pixelvla_pre_post_processors(
    config: PixelVLAConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Any, Any]:
    """The pipelines before and behind the policy.

    The normaliser is among them, as LeRobot's scripts expect, with the identity for every feature.
    """
    steps = make_default_policy_processor_steps(config, dataset_stats)
    before = [steps.rename_observations, steps.add_batch_dim, steps.to_device, steps.normalize]
    return make_policy_processor_pipelines(input_steps=before, output_steps=[steps.unnormalize, steps.to_cpu])
