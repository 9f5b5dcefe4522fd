"""``pixelvla doctor``: what is installed, what misses, and the command that mends it."""

from __future__ import annotations

import click


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Say what is installed, what misses, and the exact command that mends it.

    Exits with 1 if something required is missing.
    """
    from pixelvla_core.doctor import examine, render

    findings = examine()
    click.echo(render(findings))
    ctx.exit(1 if any(finding.required and not finding.ok for finding in findings) else 0)
