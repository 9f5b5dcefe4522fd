"""What this distribution offers; importing it loads neither LeRobot nor NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    from pixelvla_rlds.commands import from_rlds

    cli.add_command(from_rlds)
