"""results.json: the outcome of an evaluation with everything needed to repeat it. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.records import Record
from pixelvla_core.evaluate.statistics import Comparison, Rate, compare
from pixelvla_core.files import write_text

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """Episodes that belong together in a table.

    Attributes:
        success, reached, grasped: Rates; an episode that could not be run counts as a failure.
        steps: Mean number of control steps.
        iou: Mean overlap of the first mask with the exact one; None where no prompt was given.
        failures: Episodes that could not be run.
    """

    success: Rate
    reached: Rate
    grasped: Rate
    steps: float
    iou: float | None
    failures: int

    @classmethod
    def of(cls, records: Iterable[Record]) -> Cell:
        found = list(records)
        overlaps = [record.iou for record in found if record.iou is not None]
        return cls(
            success=Rate.of(record.success for record in found),
            reached=Rate.of(record.reached for record in found),
            grasped=Rate.of(record.grasped for record in found),
            steps=_mean([record.steps for record in found]) or 0.0,
            iou=_mean(overlaps),
            failures=sum(bool(record.failure_reason) for record in found),
        )

    def to_json(self) -> dict[str, Any]:
        low, high = self.success.interval
        return {
            "n": self.success.trials,
            "successes": self.success.successes,
            "success": self.success.value,
            "low": low,
            "high": high,
            "reached": self.reached.value,
            "grasped": self.grasped.value,
            "mean_steps": self.steps,
            "mean_iou": self.iou,
            "failures": self.failures,
        }


@dataclass(frozen=True, kw_only=True)
class Results:
    """An evaluation of one model.

    Attributes:
        world: What the model was faced with: environment, its options, the rule of success. Results of two models can
            be compared only if this is the same.
        method: How it was driven: model, checkpoint, segmenter, tracker, executed steps of a chunk. Parts of one
            evaluation can be merged only if this is the same as well.
        notes: Versions, machine, timings, the recipe.
    """

    world: Mapping[str, Any]
    method: Mapping[str, Any]
    records: tuple[Record, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def cells(self, *names: str) -> dict[tuple[str, ...], Cell]:
        """Return the cells of a table by fields of the job or facts, such as ``("prompt", "split")``."""
        groups: dict[tuple[str, ...], list[Record]] = {}
        for record in self.records:
            key = tuple(_field(record, name) for name in names)
            groups.setdefault(key, []).append(record)
        return {key: Cell.of(found) for key, found in groups.items()}

    def where(self, keep: Callable[[Record], bool]) -> tuple[Record, ...]:
        """Return the records that a test picks."""
        return tuple(record for record in self.records if keep(record))

    def to_json(self) -> dict[str, Any]:
        by_cell = self.cells("prompt", "task", "split")
        by_split = self.cells("prompt", "split")
        return {
            "format": FORMAT,
            "world": self.world,
            "method": self.method,
            **self.notes,
            "splits": [{"prompt": key[0], "split": key[1], **cell.to_json()} for key, cell in by_split.items()],
            "cells": [
                {"prompt": key[0], "task": key[1], "split": key[2], **cell.to_json()} for key, cell in by_cell.items()
            ],
            "episodes": [record.to_json() for record in self.records],
        }


def save(results: Results, path: Path) -> None:
    """Write results.json, beside and then renamed."""
    write_text(path, json.dumps(results.to_json(), indent=1) + "\n")


def load(path: Path) -> Results:
    """Read results.json.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        found = plain["format"]
        if found == FORMAT:
            records = tuple(Record.from_json(item) for item in plain["episodes"])
            own = ("format", "world", "method", "splits", "cells", "episodes")
            notes = {key: value for key, value in plain.items() if key not in own}
            return Results(world=plain["world"], method=plain["method"], records=records, notes=notes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} holds no results: {type(error).__name__}: {error}. Expected the results.json of an evaluation; "
            f"run `pixelvla eval` again with the same --out, which repeats no finished episode."
        ) from error
    raise UserError(f"{path} has format {found}; this version reads format {FORMAT}. Run `pixelvla eval` again.")


def merge(parts: Sequence[Results]) -> Results:
    """Join parts of one evaluation, such as other prompts or later seeds.

    Raises:
        UserError: the parts follow different protocols, or an episode is in two of them.
    """
    first = parts[0]
    for part in parts[1:]:
        check_same("world", first.world, part.world)
        check_same("method", first.method, part.method)
    records = [record for part in parts for record in part.records]
    seen: set[str] = set()
    for record in records:
        if record.job.key in seen:
            raise UserError(
                f"Episode {record.job.key} is in two of the results to merge. Each episode may count once; "
                f"leave one of the files out."
            )
        seen.add(record.job.key)
    return Results(world=first.world, method=first.method, records=tuple(records), notes=first.notes)


def paired(first: Results, second: Results, prompts: tuple[str, str], split: str | None = None) -> Comparison:
    """Compare two models, or one with two prompts, on the scenes that both saw.

    Args:
        prompts: Which prompt to take of the first and of the second.
        split: Only this one; all if None.

    Raises:
        UserError: the two were faced with different worlds.
    """
    check_same("world", first.world, second.world)
    outcomes: list[dict[Hashable, bool]] = [
        {r.job.scene: r.success for r in results.records if r.job.prompt == prompt and split in (None, r.job.split)}
        for results, prompt in zip((first, second), prompts, strict=True)
    ]
    return compare(outcomes[0], outcomes[1])


def check_same(
    what: str, first: Mapping[str, Any], second: Mapping[str, Any], remedy: str = "Evaluate again with equal settings."
) -> None:
    """Refuse to put numbers of different protocols together.

    Raises:
        UserError: names every field that differs, with both values.
    """
    differ = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    if differ:
        found = "; ".join(f"{key}: {first.get(key)!r} and {second.get(key)!r}" for key in differ)
        raise UserError(
            f"The results follow different protocols ({what}), so their numbers must not be put together: {found}. "
            f"{remedy}"
        )


def _field(record: Record, name: str) -> str:
    return str(getattr(record.job, name) if hasattr(record.job, name) else record.facts.get(name, ""))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
