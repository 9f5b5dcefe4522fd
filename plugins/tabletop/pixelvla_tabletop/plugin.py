"""What this distribution adds to pixelvla: the environment ``tabletop`` and the command ``pixelvla record``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.api import Component, hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def pixelvla_environments() -> list[Component]:
    """The embedded simulator."""
    return [
        Component(
            name="tabletop",
            target="pixelvla_tabletop.suite:build",
            config="pixelvla_tabletop.config:TabletopConfig",
            summary="Embedded MuJoCo table: pick, move near, open and close a drawer",
        )
    ]


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    """Add ``pixelvla record``."""
    from .command import record

    cli.add_command(record)
