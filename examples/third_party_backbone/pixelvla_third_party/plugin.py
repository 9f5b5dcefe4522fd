"""What the entry point names: a list of parts, as data. Nothing heavy is imported here."""

from __future__ import annotations

from pixelvla_core.api import Component, hookimpl


@hookimpl
def pixelvla_backbones() -> list[Component]:
    return [
        Component(
            name="third_party",
            target="pixelvla_third_party.adapter:build",
            config="pixelvla_third_party.config:ThirdPartyConfig",
            summary="A tiny transformer: the smallest complete adapter, to copy from",
            provides=frozenset({"hidden", "native"}),
        )
    ]
