"""What this distribution offers; importing it loads neither LeRobot nor torch."""

from __future__ import annotations

from pixelvla_core.component import Component
from pixelvla_core.hookspecs import hookimpl


@hookimpl
def pixelvla_datasets() -> list[Component]:
    return [
        Component(
            name="lerobot",
            target="pixelvla_lerobot.dataset:LeRobotSamples",
            config="pixelvla_lerobot.config:LeRobotConfig",
            summary="A LeRobotDataset v3 (videos or images) with pixel annotations beside it",
        )
    ]
