"""From a run of pixelvla to a folder that LeRobot's tools load: the policy, its checkpoint and its processors."""

from __future__ import annotations

from pathlib import Path

from pixelvla_core import checkpoint
from pixelvla_core.api import UserError
from pixelvla_core.files import atomic_folder


def export(run: Path, out: Path) -> Path:
    """Write `out`, for `lerobot-eval --policy.path=out` and the like.

    Raises:
        UserError: the folder exists already.
        CheckpointError: the run's checkpoint is damaged or does not load.
    """
    from lerobot.configs import FeatureType, PolicyFeature

    from .configuration_pixelvla import PixelVLAConfig
    from .modeling_pixelvla import PixelVLAPolicy
    from .processor_pixelvla import make_pixelvla_pre_post_processors

    if out.exists():
        raise UserError(f"{out} exists; give another folder's name.")
    model = checkpoint.load(run).model
    spec, horizon = model.backbone.spec, model.head.horizon
    dim = spec.action.dim if model.contract is None else model.contract.dim
    image = PolicyFeature(type=FeatureType.VISUAL, shape=(3, spec.image_size, spec.image_size))
    config = PixelVLAConfig(
        checkpoint=str(checkpoint.resolve(Path(run))),
        chunk_size=horizon,
        n_action_steps=horizon,
        train_groups=[],
        device="cpu",
        input_features={f"observation.images.{camera}": image for camera in spec.cameras},
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(dim,))},
    )
    with atomic_folder(out) as partial:
        PixelVLAPolicy(config).save_pretrained(partial)
        for pipeline in make_pixelvla_pre_post_processors(config):
            pipeline.save_pretrained(partial)
    return out
