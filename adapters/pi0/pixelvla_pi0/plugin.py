"""What this distribution offers to pixelvla."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_backbones() -> list[Component]:
    return [
        Component(
            name="pi0",
            target="pixelvla_pi0.adapter:build",
            config="pixelvla_pi0.config:Pi0Options",
            summary="LeRobot's pi0, from a folder that LeRobot wrote or a hub id",
            provides=frozenset({"hidden", "native", "flow"}),
        )
    ]
