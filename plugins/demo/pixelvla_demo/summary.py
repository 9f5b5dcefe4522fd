"""The table that ends ``pixelvla demo`` in the terminal: the report's first one in short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pixelvla_core.evaluate.results import Cell

from .methods import Method
from .sources import CLAIM, ordered, read_model, rows
from .tables import words


def show(out: Path, methods: Sequence[Method]) -> None:
    """Print success per model, prompt and split, from the results in ``out``."""
    models = [read_model(method.title, out / method.name) for method in methods]
    splits = ordered(models, "split")
    table = Table(title="Success in closed loop, with Wilson 95 % intervals", title_justify="left")
    for heading in ("model", "the user gives", *map(words, splits)):
        table.add_column(heading)
    for row in rows(models):
        cells = row.cells("split")
        table.add_row(row.model.title, row.asked, *(_text(cells.get((split,))) for split in splits))
    Console().print(table)
    Console().print(f"* fewer than {CLAIM} episodes: for orientation, nothing is claimed of it")


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    low, high = cell.success.interval
    few = " *" if cell.success.trials < CLAIM else ""
    return f"{100 * cell.success.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] n={cell.success.trials}{few}"
