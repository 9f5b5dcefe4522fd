"""What the entry point names: a list of parts, as data. Nothing heavy is imported here."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_backbones() -> list[Component]:
    return [
        Component(
            name="smolvla",
            target="pixelvla_smolvla.adapter:build",
            config="pixelvla_smolvla.config:SmolVLAOptions",
            summary="LeRobot's SmolVLA, from a folder that LeRobot wrote or a hub id",
            provides=frozenset({"hidden", "native", "flow"}),
        )
    ]
