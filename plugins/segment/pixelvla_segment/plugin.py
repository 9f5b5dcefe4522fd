"""What this distribution offers."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_segmenters() -> list[Component]:
    return [
        Component(
            name="grabcut",
            target="pixelvla_segment.grabcut:GrabCut",
            config="pixelvla_segment.config:GrabCutConfig",
            summary="OpenCV's GrabCut from points, lines, boxes and masks; no weights",
        )
    ]


@hookimpl
def pixelvla_trackers() -> list[Component]:
    return [
        Component(
            name="follow",
            target="pixelvla_segment.follow:Follow",
            config="pixelvla_segment.config:FollowConfig",
            summary="Finds the object's colours and shape again on each image",
        )
    ]
