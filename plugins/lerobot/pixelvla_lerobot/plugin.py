"""What this distribution offers; importing it loads neither LeRobot nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.component import Component
from pixelvla_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


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


@hookimpl
def pixelvla_recordings() -> list[Component]:
    return [
        Component(
            name="lerobot",
            target="pixelvla_lerobot.recording:LeRobotRecording",
            config="pixelvla_lerobot.config:RecordingConfig",
            summary="A LeRobotDataset v3, from a folder or the Hub, to be annotated",
        )
    ]


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    from pixelvla_lerobot.commands import data_group

    cli.add_command(data_group)
