"""What this distribution offers to pixelvla: the command ``pixelvla demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.api import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    from .command import demo

    cli.add_command(demo)
