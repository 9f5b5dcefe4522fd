"""What a report is made from: results of evaluations, the logs of training, the kept frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pixelvla_core.evaluate import Cell, Comparison, Results, load, paired

CLAIM = 100
"""Episodes that a cell needs before anything is claimed of it."""


@dataclass(frozen=True, eq=False)
class Model:
    """One model of the report.

    Attributes:
        title: Its name in tables.
        results: Its evaluation.
        folder: Where the evaluation's frames are.
        metrics: Lines of its training log, each with "step", "stage", "stage_step" and "loss"; empty if it has none.
        base: What it was made from; only models of one base are compared.
    """

    title: str
    results: Results
    folder: Path
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    base: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table: a model with one kind of prompt."""

    model: Model
    prompt: str

    @property
    def asked(self) -> str:
        """What the user gave, in words."""
        return "text only" if self.prompt == "none" else f"text + {self.prompt.replace('+', ' + ')}"

    def cells(self, *names: str) -> dict[tuple[str, ...], Cell]:
        """Cells of this row by fields of the episodes."""
        found = self.model.results.cells("prompt", *names)
        return {key[1:]: cell for key, cell in found.items() if key[0] == self.prompt}

    def claimed(self, split: str) -> bool:
        """Whether this row has enough episodes of a split to claim anything of it."""
        cell = self.cells("split").get((split,))
        return cell is not None and cell.success.trials >= CLAIM

    def versus(self, other: Row, split: str) -> Comparison:
        """This row against another one on the episodes of a split that both saw."""
        return paired(self.model.results, other.model.results, (self.prompt, other.prompt), split)


def read_model(title: str, run: Path, base: str = "") -> Model:
    """Read a run that was evaluated into ``run/eval``.

    Raises:
        UserError: there are no results, or they are damaged.
    """
    folder = run / "eval"
    return Model(title, load(folder / "results.json"), folder, read_metrics(run / "metrics.jsonl"), base)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a training log; a last line that was cut off is left out, and of a repeated step the last one counts."""
    if not path.is_file():
        return []
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "step" in entry and "loss" in entry:
            found[entry["step"]] = entry
    return [found[step] for step in sorted(found)]


def families(models: Sequence[Model]) -> list[list[Model]]:
    """Models of one base together, in order; the first of each is the base as it comes."""
    return [list(group) for _, group in groupby(models, key=lambda model: model.base)]


def rows(models: Sequence[Model]) -> list[Row]:
    """Every row of the tables, models in order, prompts as they were run."""
    return [
        Row(model, prompt)
        for model in models
        for prompt in dict.fromkeys(record.job.prompt for record in model.results.records)
    ]


def ordered(models: Sequence[Model], name: str) -> list[str]:
    """Every task or split in the order of the evaluations."""
    return list(dict.fromkeys(getattr(record.job, name) for model in models for record in model.results.records))
