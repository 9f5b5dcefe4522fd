"""What this distribution offers; importing it loads no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelvla_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    from pixelvla_review.commands import review

    cli.add_command(review)
