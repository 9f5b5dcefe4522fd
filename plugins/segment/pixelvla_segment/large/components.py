"""The parts with large models, for the plugin's lists."""

from __future__ import annotations

from pixelvla_core.api import Component

_CONFIG = "pixelvla_segment.large.config:"


def segmenters() -> list[Component]:
    return [
        Component(
            name="sam2",
            target="pixelvla_segment.large.sam2:Sam2",
            config=_CONFIG + "Sam2Config",
            summary="SAM 2 through its authors' package",
        ),
        Component(
            name="sam2_hf",
            target="pixelvla_segment.large.sam2_hf:Sam2Hf",
            config=_CONFIG + "Sam2HfConfig",
            summary="SAM 2 through transformers",
        ),
        Component(
            name="sam2-tiny",
            target="pixelvla_segment.large.sam2_hf:Sam2Hf",
            config=_CONFIG + "Sam2TinyConfig",
            summary="SAM 2.1 tiny through transformers, for inference",
        ),
        Component(
            name="edgetam",
            target="pixelvla_segment.large.sam2_hf:EdgeTam",
            config=_CONFIG + "EdgeTamConfig",
            summary="EdgeTAM, a fast relative of SAM 2, through transformers",
        ),
        Component(
            name="fastsam",
            target="pixelvla_segment.large.fastsam:FastSam",
            config=_CONFIG + "FastSamConfig",
            summary="FastSAM through ultralytics, which is licensed under the AGPL-3.0",
        ),
    ]


def trackers() -> list[Component]:
    return [
        Component(
            name="sam2",
            target="pixelvla_segment.large.tracker:Sam2Tracker",
            config=_CONFIG + "Sam2TrackerConfig",
            summary="SAM 2's memory of an object through transformers",
        )
    ]


def detectors() -> list[Component]:
    return [
        Component(
            name="grounding_dino",
            target="pixelvla_segment.large.grounding_dino:GroundingDino",
            config=_CONFIG + "GroundingDinoConfig",
            summary="Grounding DINO through transformers",
        ),
        Component(
            name="groundingdino_py",
            target="pixelvla_segment.large.groundingdino_py:GroundingDinoPy",
            config=_CONFIG + "GroundingDinoPyConfig",
            summary="Grounding DINO through its authors' package",
        ),
    ]


def gripper_finders() -> list[Component]:
    return [
        Component(
            name="video",
            target="pixelvla_segment.large.video:VideoGripper",
            config=_CONFIG + "VideoConfig",
            summary="From a seed or a text, tracked through the frames on which grippers close",
        )
    ]
