"""From results.json to the tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.machine import code
from bench.report import VERDICTS

BEGIN, END = "<!-- begin: written by python -m bench.run -->", "<!-- end -->"
JSON = Mapping[str, Any]
YES = {True: "yes", False: "**no**"}


def render(results: Mapping[str, JSON]) -> str:
    """The tables in Markdown: figures with a target, all others, and the circumstances of each benchmark."""
    judged = [(name, figure) for name, figure in _figures(results) if figure["target"]]
    others = [(name, figure) for name, figure in _figures(results) if not figure["target"]]
    notes = list(_notes(results))
    parts = [
        "### Targets",
        _table(
            ["benchmark", "figure", "target", "measured", "verdict"],
            [[name, f["what"], f["target"], f["text"], VERDICTS[f["met"]]] for name, f in judged],
        ),
        *(["\n".join(notes)] if notes else []),
        "### Other figures",
        _table(["benchmark", "figure", "measured"], [[name, f["what"], f["text"]] for name, f in others]),
        "### When and where",
        _table(
            ["benchmark", "date", "this code", "load at the start", "quiet", "took", "machine"],
            [[name, *_circumstances(name, result)] for name, result in results.items()],
        ),
    ]
    return "\n\n".join(parts)


def _figures(results: Mapping[str, JSON]) -> Iterator[tuple[str, JSON]]:
    for name, result in results.items():
        for figure in result.get("figures", ()):
            yield name, figure


def _notes(results: Mapping[str, JSON]) -> Iterator[str]:
    for name, result in results.items():
        if result["error"]:
            yield f"- `{name}` failed: {result['error']}"
        elif result["skipped"]:
            yield f"- `{name}` was skipped: {result['skipped']}"
        yield from (f"- `{name}`, {note}" for note in result.get("notes", ()))


def _circumstances(name: str, result: JSON) -> list[str]:
    same = YES[result.get("code") == code(name)]
    where = result["circumstances"]
    minutes = f"{result['seconds'] / 60:.1f} min"
    machine = f"{where['machine']}; torch {where['versions']['torch']}"
    return [where["date"], same, f"{where['load']}", YES[where["quiet"]], minutes, machine]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def into_page(page: str, tables: str) -> str:
    """Put the tables between the page's markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise ValueError(f"The page lacks the markers {BEGIN} and {END}, between which the tables belong.")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"
