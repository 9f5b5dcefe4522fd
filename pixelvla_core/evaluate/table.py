"""An evaluation's outcome and progress on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pixelvla_core.evaluate.results import Cell, Results


def show(results: Results, console: Console | None = None) -> None:
    """Print success per prompt and task (rows) and split (columns) with Wilson 95 % intervals."""
    (console or Console()).print(table(results))


def table(results: Results) -> Table:
    """Return the table of :func:`show`; the rows "all" pool the tasks."""
    by_task, pooled = results.cells("prompt", "task", "split"), results.cells("prompt", "split")
    prompts = list(dict.fromkeys(key[0] for key in by_task))
    tasks = list(dict.fromkeys(key[1] for key in by_task))
    splits = list(dict.fromkeys(key[2] for key in by_task))
    title = f"{results.notes.get('name', 'model')}: success with 95 % interval"
    found = Table(title=title, title_justify="left")
    found.add_column("prompt")
    found.add_column("task")
    for split in splits:
        found.add_column(split, justify="right")
    for prompt in prompts:
        for task in tasks:
            cells = [by_task.get((prompt, task, split)) for split in splits]
            found.add_row(prompt, task, *map(cell_text, cells))
        cells = [pooled.get((prompt, split)) for split in splits]
        found.add_row(prompt, "all", *map(cell_text, cells), style="bold", end_section=True)
    failures = sum(cell.failures for cell in pooled.values())
    found.caption = f"{failures} episodes could not be run and count as failures" if failures else None
    return found


def cell_text(cell: Cell | None) -> str:
    """Return a cell such as ``62.0 % [52.2, 70.9] n=100``."""
    if cell is None:
        return "–"
    low, high = cell.success.interval
    return f"{cell.success.value:.1%} [{100 * low:.1f}, {100 * high:.1f}] n={cell.success.trials}".replace("%", " %")


def progress(quiet: bool) -> Progress:
    """Return a progress bar on standard error with rate and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=quiet),
    )
