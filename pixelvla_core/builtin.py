"""Core's own parts, registered by the same entry point mechanism as anybody's."""

from __future__ import annotations

from pixelvla_core.component import Component
from pixelvla_core.hookspecs import hookimpl

_MODEL = "pixelvla_core.model"


@hookimpl
def pixelvla_pixel_encoders() -> list[Component]:
    return [
        Component(
            name="multiscale",
            target=f"{_MODEL}.pixel_encoder:MultiscalePixelEncoder",
            config=f"{_MODEL}.config:PixelEncoderConfig",
            summary="Masked means of several depths of the vision tower, one token per mask (Eq. 3 of the paper)",
        )
    ]


@hookimpl
def pixelvla_prompt_encoders() -> list[Component]:
    return [
        Component(
            name="sam",
            target=f"{_MODEL}.prompt_encoder:VisualPromptEncoder",
            config=f"{_MODEL}.config:PromptEncoderConfig",
            summary="Points, lines, boxes and masks as tokens, after SAM's prompt encoder",
        ),
        Component(
            name="overlay",
            target=f"{_MODEL}.overlay:OverlayPromptEncoder",
            config=f"{_MODEL}.config:OverlayConfig",
            summary="Prompts drawn onto the image; adds no tokens",
        ),
    ]


@hookimpl
def pixelvla_action_heads() -> list[Component]:
    return [
        Component(
            name="l1",
            target=f"{_MODEL}.action_head:L1ActionHead",
            config=f"{_MODEL}.config:ActionHeadConfig",
            summary="Continuous action chunks by residual blocks and an L1 loss (section 3.3 of the paper)",
            requires=frozenset({"hidden"}),
        ),
        Component(
            name="native",
            target=f"{_MODEL}.native_head:NativeHead",
            config=f"{_MODEL}.config:NativeHeadConfig",
            summary="The base model's own objective and prediction, for baselines; no parameters",
            requires=frozenset({"native"}),
        ),
    ]


@hookimpl
def pixelvla_datasets() -> list[Component]:
    return [
        Component(
            name="mixture",
            target="pixelvla_core.data.mixture:Mixture",
            config="pixelvla_core.data.config:MixtureConfig",
            summary="Several datasets as one, each with its share of the samples",
        )
    ]


@hookimpl
def pixelvla_trackers() -> list[Component]:
    return [
        Component(
            name="hold",
            target="pixelvla_core.evaluate.trackers:Hold",
            config="pixelvla_core.evaluate.config:HoldConfig",
            summary="Keeps the mask of the first image, as the paper does",
        )
    ]


@hookimpl
def pixelvla_runners() -> list[Component]:
    return [
        Component(
            name="local",
            target="pixelvla_core.annotate.pipeline:Local",
            config="pixelvla_core.annotate.config:LocalConfig",
            summary="One task after the other, in this process",
        )
    ]
