"""What this distribution offers; importing it does not load Ray."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_runners() -> list[Component]:
    return [
        Component(
            name="ray",
            target="pixelvla_ray.runner:RayRunner",
            config="pixelvla_ray.config:RayConfig",
            summary="Many tasks at once on Ray's workers, on one machine or on a cluster with a shared file system",
        )
    ]
