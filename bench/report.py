"""What every benchmark reports: figures, some with a target, as JSON for `bench.run` or as lines for a reader."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]
VERDICTS = {True: "met", False: "**missed**", None: "undecided"}
"""None: the confidence interval reaches across the target."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number.

    Attributes:
        what: What was measured, for the table.
        value: The number.
        unit: Such as "s", "%", "x" (times), "MiB", "/s".
        at_most: The target, if smaller is better.
        at_least: The target, if larger is better.
        low: Where the value's confidence interval begins, if it has one.
        high: Where it ends.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one, or if the interval reaches across it."""
        answers = {self._meets(value) for value in (self.value, self.low, self.high) if value is not None}
        return answers.pop() if len(answers) == 1 else None

    def _meets(self, value: float) -> bool | None:
        if self.at_most is not None:
            return value <= self.at_most
        return None if self.at_least is None else value >= self.at_least

    @property
    def target(self) -> str:
        """Such as "at most 3 %"; empty without a target."""
        if self.at_most is not None:
            return f"at most {amount(self.at_most, self.unit)}"
        return "" if self.at_least is None else f"at least {amount(self.at_least, self.unit)}"

    def to_json(self) -> JSON:
        text = amount(self.value, self.unit)
        if self.low is not None and self.high is not None:
            text += f" ({amount(self.low, '')} to {amount(self.high, '')})"
        shown = {"what": self.what, "value": self.value, "unit": self.unit, "text": text}
        return {**shown, "target": self.target, "met": self.met}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one benchmark found.

    Attributes:
        figures: In the order of the table.
        details: Everything measured, to look things up in.
        notes: What could not be measured, and why.
        skipped: Why nothing was measured; empty otherwise.
    """

    figures: list[Figure] = field(default_factory=list)
    details: JSON = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    def to_json(self) -> JSON:
        return {
            "figures": [figure.to_json() for figure in self.figures],
            "details": self.details,
            "notes": self.notes,
            "skipped": self.skipped,
        }


def amount(value: float, unit: str) -> str:
    """The number with three digits and its unit."""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number}{unit}" if unit == "/s" else f"{number} {unit}".strip()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing")
    return made


def publish(report: Report, as_json: bool) -> None:
    """Print the report; JSON is one line and the last, whatever libraries printed before."""
    print(json.dumps(report.to_json()) if as_json else readable(report.to_json()), flush=True)


def readable(report: JSON) -> str:
    """One line per figure."""
    if report["skipped"]:
        return f"skipped: {report['skipped']}"
    return "\n".join([*(_line(figure) for figure in report["figures"]), *report["notes"]])


def _line(figure: JSON) -> str:
    judged = f"  ({figure['target']}: {VERDICTS[figure['met']]})" if figure["target"] else ""
    return f"{figure['text']:>24}  {figure['what']}{judged}"
