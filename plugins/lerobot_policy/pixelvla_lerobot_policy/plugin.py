"""What this distribution offers to pixelvla: a command."""

from __future__ import annotations

from pathlib import Path

import click

from pixelvla_core.api import hookimpl


@hookimpl
def pixelvla_commands(cli: click.Group) -> None:
    @cli.command("lerobot-policy")
    @click.argument("run", type=click.Path(path_type=Path))
    @click.argument("out", type=click.Path(path_type=Path))
    def lerobot_policy(run: Path, out: Path) -> None:
        """Write a run as a policy folder that LeRobot's tools load."""
        from lerobot_policy_pixelvla.export import export

        click.echo(f"{export(run, out)}: lerobot-eval --policy.path={out}")
