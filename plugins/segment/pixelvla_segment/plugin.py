"""What this distribution offers; importing it loads neither OpenCV nor a model."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl
from pixelvla_segment.large import components as large

_CONFIG = "pixelvla_segment.config:"


@hookimpl
def pixelvla_segmenters() -> list[Component]:
    return [
        Component(
            name="grabcut",
            target="pixelvla_segment.grabcut:GrabCut",
            config=_CONFIG + "GrabCutConfig",
            summary="OpenCV's GrabCut from points, lines, boxes and masks; no weights",
        ),
        *large.segmenters(),
    ]


@hookimpl
def pixelvla_trackers() -> list[Component]:
    return [
        Component(
            name="follow",
            target="pixelvla_segment.follow:Follow",
            config=_CONFIG + "FollowConfig",
            summary="Finds the object's colours and shape again on each image",
        ),
        Component(
            name="flow",
            target="pixelvla_segment.flow:Flow",
            config=_CONFIG + "FlowConfig",
            summary="Moves the mask with the optical flow of the object's pixels",
        ),
        *large.trackers(),
    ]


@hookimpl
def pixelvla_detectors() -> list[Component]:
    return [
        Component(
            name="colour",
            target="pixelvla_segment.colour:Colour",
            config=_CONFIG + "ColourConfig",
            summary="Coloured things by the words for their colours and shapes; no weights",
        ),
        *large.detectors(),
    ]


@hookimpl
def pixelvla_gripper_finders() -> list[Component]:
    return [
        Component(
            name="motion",
            target="pixelvla_segment.motion:Motion",
            config=_CONFIG + "MotionConfig",
            summary="What moves in every episode and has the same colours in all of them; no weights",
        ),
        *large.gripper_finders(),
    ]
