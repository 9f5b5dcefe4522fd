"""``pixelvla plugins``: what is installed, what is broken and why, and whether a backbone keeps the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from pixelvla_core.plugins import PluginManager, describe_conflict


@click.group(invoke_without_command=True)
@click.pass_context
def plugins(ctx: click.Context) -> None:
    """List the installed parts and the distributions they come from; broken plugins with the reason."""
    if ctx.invoked_subcommand is None:
        manager = PluginManager.load()
        manager.add_commands(click.Group())
        for line in listing(manager):
            click.echo(line)


@plugins.command()
@click.argument("name")
@click.option(
    "--weights",
    help="A folder, a hub id or a name that a plugin ships; random weights, where it has them, if left out.",
)
@click.pass_context
def check(ctx: click.Context, name: str, weights: str | None) -> None:
    """Run the conformance suite on backbone NAME; exits with 1 if a clause fails."""
    registry = PluginManager.load().registry
    component, weights = registry.get("backbone", name), registry.locate(name, weights)
    from pixelvla_core.testing import check_backbone  # after the look-up: it imports torch

    report = check_backbone(component, weights=weights)
    click.echo(str(report))
    ctx.exit(0 if report.ok else 1)


def listing(manager: PluginManager) -> list[str]:
    """Return the lines of the list: one per part or shipped weights, then names claimed twice, then broken plugins."""
    header = ("DISTRIBUTION", "VERSION", "KIND", "NAME", "SUMMARY")
    lines = _columns([header, *sorted(_rows(manager), key=lambda row: (row[0], row[2], row[3]))])
    conflicts = [describe_conflict(claims) for claims in manager.registry.conflicts()]
    broken = [f"broken: {plugin}" for plugin in manager.broken]
    return [*lines, *([""] if conflicts or broken else []), *conflicts, *broken]


def _rows(manager: PluginManager) -> Iterator[tuple[str, ...]]:
    for entry in manager.registry:
        part = entry.component
        yield entry.distribution, entry.version, entry.kind, part.name, part.summary
    for shipped in manager.registry.shipped:
        weights = shipped.weights
        yield (
            shipped.distribution,
            shipped.version,
            "weights",
            weights.name,
            f"for {weights.backbone}: {weights.summary}",
        )


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    ]
