"""The report's tables as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby

from pixelvla_core.evaluate import Cell, Comparison

from .charts import interval
from .sources import Row

SIGNIFICANT = 0.05
FEW = "&nbsp;†"


def success_table(rows: Sequence[Row], columns: Sequence[str], field: str, split: str | None = None) -> str:
    """Return rows of models and prompts over columns of splits, tasks or axes, one interval in each cell.

    Args:
        field: What the columns are: "split", or a field of the episodes within ``split``.
        split: Only episodes of this split.
    """
    names = (field,) if split is None else ("split", field)
    cells = {id(row): row.cells(*names) for row in rows}
    best = {column: best_rows(rows, column) for column in columns} if field == "split" else {}

    def render(row: Row) -> str:
        parts = []
        for column in columns:
            cell = cells[id(row)].get((column,) if split is None else (split, column))
            few = field == "split" and not row.claimed(column)
            parts.append(cell_html(cell, bold=row in best.get(column, ()), few=few))
        return "".join(parts)

    return _table(rows, [(words(column), "cell") for column in columns], render)


def comparison_table(rows: Sequence[Row], reference: Row, splits: Sequence[str]) -> str:
    """Return each row's difference to a reference in points of success, with the p-value of the exact McNemar test."""

    def render(row: Row) -> str:
        return "".join(_difference(row, reference, split) for split in splits)

    others = [row for row in rows if row is not reference]
    return _table(others, [(words(split), "cell") for split in splits], render)


def best_rows(rows: Sequence[Row], split: str) -> list[Row]:
    """Return the best row of each base, where there is one."""
    bases = [list(group) for _, group in groupby(rows, key=lambda row: row.model.base)]
    return [best for own in bases if (best := best_row(own, split))]


def best_row(rows: Sequence[Row], split: str) -> Row | None:
    """Return the row with the highest success if it beats the best row of every other model significantly.

    Exact McNemar test on the shared episodes, p times the number of other models (Bonferroni) below 0.05. Rows of too
    few episodes take no part.
    """
    ranked = sorted((row for row in rows if row.claimed(split)), key=lambda row: -_rate(row, split))
    if not ranked:
        return None
    rivals = {row.model.title: row for row in reversed(ranked) if row.model is not ranked[0].model}
    limit = SIGNIFICANT / max(1, len(rivals))
    beaten = [ranked[0].versus(rival, split) for rival in rivals.values()]
    return ranked[0] if beaten and all(c.difference > 0 and c.p_value < limit for c in beaten) else None


def cell_html(cell: Cell | None, *, bold: bool = False, few: bool = False) -> str:
    """Return a table cell with rate, interval, number of episodes (marked if they are few) and a bar."""
    if cell is None:
        return '<td class="cell muted">–</td>'
    low, high = cell.success.interval
    return (
        f'<td class="cell{" best" if bold else ""}"><span class="rate">{percent(cell.success.value)}</span> '
        f'<span class="how">[{100 * low:.1f}, {100 * high:.1f}] n={cell.success.trials}{FEW if few else ""}</span>'
        f"{interval(low, cell.success.value, high)}</td>"
    )


def plain_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of texts; the first column names the line, the others are numbers."""
    head = "".join(f'<th class="{"number" if index else ""}">{escape(text)}</th>' for index, text in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"number" if i else ""}">{escape(text)}</td>' for i, text in enumerate(line))
        + "</tr>"
        for line in lines
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def percent(value: float) -> str:
    """Return a rate such as ``62.0 %`` with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


def signed(difference: float) -> str:
    """Return a difference of rates in points, such as ``+4.0`` or ``−2.5``."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def p_value(found: Comparison) -> str:
    """Return the p-value of a comparison as text."""
    return "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"


def points(found: Comparison) -> str:
    """Return a comparison as text, such as ``+4.0 points, p = 0.031``."""
    return escape(f"{signed(found.difference)} points, {p_value(found)}")


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ")


def _rate(row: Row, split: str) -> float:
    return row.cells("split")[(split,)].success.value


def _difference(row: Row, reference: Row, split: str) -> str:
    found = row.versus(reference, split)
    if not found.pairs:
        return '<td class="cell muted">–</td>'
    few = "" if row.claimed(split) and reference.claimed(split) else FEW
    bold = " best" if found.p_value < SIGNIFICANT and not few else ""
    return (
        f'<td class="cell{bold}"><span class="rate">{signed(found.difference)}</span> '
        f'<span class="how">{escape(p_value(found))}, {found.pairs} pairs{few}</span></td>'
    )


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str]], render: Callable[[Row], str]) -> str:
    head = "".join(f'<th class="{kind}">{escape(text)}</th>' for text, kind in columns)
    bodies = []
    for title, group in groupby(rows, key=lambda row: row.model.title):
        lines = [
            f"<tr><th>{escape(title) if first else ''}</th><td>{escape(row.asked)}</td>{render(row)}</tr>"
            for row, first in ((row, index == 0) for index, row in enumerate(group))
        ]
        bodies.append(f'<tbody class="group">{"".join(lines)}</tbody>')
    return (
        f'<div class="scroll"><table><thead><tr><th>model</th><th>the user gives</th>{head}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )
