"""What this distribution offers to pixelvla."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_backbones() -> list[Component]:
    return [
        Component(
            name="openvla",
            target="pixelvla_openvla.adapter:build",
            config="pixelvla_openvla.config:OpenVLAConfig",
            summary="OpenVLA's Prismatic stack, from an official checkpoint folder or a hub id",
            provides=frozenset({"hidden", "native"}),
        )
    ]
