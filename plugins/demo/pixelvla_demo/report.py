"""The report: one HTML file that needs nothing else, from results, training logs and kept frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Protocol

from pixelvla_core.evaluate import Record
from pixelvla_core.files import write_text

from . import annotating
from .charts import curves
from .sources import CLAIM, Model, Row, families, ordered, read_model, rows
from .strips import strip
from .tables import comparison_table, percent, plain_table, points, success_table, words

STRIPS = 6


class Named(Protocol):
    """What the report must know of a method: its folder, its title, and what it was made from."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def base(self) -> str: ...


def write(out: Path, methods: Sequence[Named], seconds: Mapping[str, float], elapsed: float) -> Path:
    """Write ``out/report.html`` from the runs in ``out`` and return its path.

    Args:
        out: Holds a run per method, each evaluated into its ``eval`` folder.
        methods: Models in the order of the tables; the first one of each base is what the others are compared with.
        seconds: Every command that was run, with the time it took.
        elapsed: The time that all of them took, several at a time.

    Raises:
        UserError: results are missing, damaged, or of worlds that cannot be compared.
    """
    models = [read_model(method.title, out / method.name, method.base) for method in methods]
    write_text(out / "report.html", render(models, seconds, elapsed, before_timings=annotating.section(out)))
    return out / "report.html"


def render(
    models: Sequence[Model],
    seconds: Mapping[str, float],
    elapsed: float = 0.0,
    *,
    title: str = "Closed-loop results",
    before_timings: str = "",
) -> str:
    """Return the report as HTML, with one more section before the timings if given."""
    sections = [
        _summary(models),
        _results(models),
        _differences(models),
        _films(models),
        _by_task(models),
        _by_axis(models),
        _curves(models),
        before_timings,
        _timings(models, seconds, elapsed),
        _repeat(models, seconds),
    ]
    folder = files("pixelvla_demo") / "templates"
    page = Template((folder / "report.html").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    return page.substitute(title=escape(title), style=style, body="\n".join(filter(None, sections)))


def _summary(models: Sequence[Model]) -> str:
    """What came out, in sentences that the numbers write."""
    lines = [line for family in families(models) for line in _findings(family)]
    episodes = sum(len(model.results.records) for model in models)
    failures = sum(bool(record.failure_reason) for model in models for record in model.results.records)
    note = f" {failures} of them could not be run and count as failures." if failures else ""
    return (
        f"<p>{episodes} episodes in closed loop, every model on the same scenes. Intervals are Wilson 95 %; models are "
        f"compared episode by episode with the exact McNemar test.{note}</p><ul>{''.join(lines)}</ul>"
    )


def _findings(family: Sequence[Model]) -> list[str]:
    """For each split the best row of a base's models against the base as it comes."""
    everything, reference = rows(family), rows(family)[0]
    lines = []
    for split in ordered(family, "split"):
        found = [row for row in everything if row.model is not family[0] and (split,) in row.cells("split")]
        # A quick demonstration has no row of enough episodes; its sentences then say of how few they are.
        found = [row for row in found if row.claimed(split)] or found
        if found and (split,) in reference.cells("split"):
            best = max(found, key=lambda row: row.cells("split")[(split,)].success.value)
            lines.append(f"<li>{_sentence(best, reference, split)}</li>")
    return lines


def _sentence(best: Row, reference: Row, split: str) -> str:
    found = best.versus(reference, split)
    chance = ", no more than chance explains" if found.p_value >= 0.05 else ""
    few = "" if best.claimed(split) else f" Only {found.pairs} episodes: nothing is claimed."
    verb = "is ahead of" if found.difference > 0 else "is level with" if found.difference == 0 else "falls behind"
    return (
        f"<b>{escape(words(split))}</b>: the best row, {escape(best.model.title)} ({escape(best.asked)}), succeeds in "
        f"{percent(found.first)} and {verb} {escape(reference.model.title)} with {percent(found.second)} "
        f"({points(found)}{chance}).{few}"
    )


def _results(models: Sequence[Model]) -> str:
    return (
        "<h2>Success by split</h2>"
        + success_table(rows(models), ordered(models, "split"), "split")
        + '<p class="note">Success after the last step, Wilson 95 % interval, number of episodes. Bold: better than '
        "the best row of every other model of its base (exact McNemar test, p &lt; 0.05 after Bonferroni). "
        f"{_few(models)}"
        f"{_how_prompts_became_masks(models)}</p>"
    )


def _few(models: Sequence[Model]) -> str:
    splits = ordered(models, "split")
    if all(row.claimed(split) for row in rows(models) for split in splits if (split,) in row.cells("split")):
        return ""
    return f"†: fewer than {CLAIM} episodes, for orientation; nothing is claimed of such a row, and it is never bold. "


def _how_prompts_became_masks(models: Sequence[Model]) -> str:
    """Who segmented and tracked, and how well the first masks fit."""
    prompted = [row for row in rows(models) if row.prompt != "none"]
    if not prompted:
        return ""
    method = prompted[0].model.results.method
    segmenter = method["segmenter"] if isinstance(method["segmenter"], str) else method["segmenter"]["name"]
    exact = "the simulator's exact mask" if segmenter == "oracle" else f"segmenter {segmenter}"
    fits = {row.prompt: cell.iou for row in prompted for cell in row.cells().values() if cell.iou is not None}
    listed = ", ".join(f"{prompt} {iou:.2f}" for prompt, iou in fits.items())
    return (
        f"Prompts are given once, on the first image; the mask comes from {escape(exact)} and is carried on by tracker "
        f"{escape(method['tracker']['name'])}. Mean IoU of the first mask with the exact one: {escape(listed)}."
    )


def _differences(models: Sequence[Model]) -> str:
    """Every row against each baseline of its base: the models that were only told in words."""
    tables = [table for family in families(models) for model in family for table in _against(model, family)]
    note = "Points of success on the same episodes; exact McNemar test, not corrected; bold: p &lt; 0.05. "
    note += _few(models)
    return "".join(tables) + f'<p class="note">{note}</p>' if tables else ""


def _against(model: Model, family: Sequence[Model]) -> list[str]:
    """The heading and the table of differences to a baseline; nothing for another model."""
    own = [row for row in rows(family) if row.model is model]
    others = [row for row in rows(family) if row.model is not model]
    if [row.prompt for row in own] != ["none"] or not others:
        return []
    table = comparison_table(others, own[0], ordered(family, "split"))
    return [f"<h2>Difference to {escape(model.title)}</h2>", table]


def _by_task(models: Sequence[Model]) -> str:
    tasks = ordered(models, "task")
    if len(tasks) < 2:
        return ""
    tables = []
    for split in ordered(models, "split"):
        present = [t for t in tasks if any((split, t) in row.cells("split", "task") for row in rows(models))]
        tables.append(f"<h3>{escape(words(split))}</h3>{success_table(rows(models), present, 'task', split)}")
    return f"<h2>Success by task</h2>{''.join(tables)}"


def _by_axis(models: Sequence[Model]) -> str:
    axes = sorted({record.facts["axis"] for m in models for record in m.results.records if "axis" in record.facts})
    splits = {record.job.split for m in models for record in m.results.records if "axis" in record.facts}
    tables = [success_table(rows(models), axes, "axis", split) for split in sorted(splits)]
    return f"<h2>Success by axis of variation</h2>{''.join(tables)}" if tables else ""


def _curves(models: Sequence[Model]) -> str:
    """One chart per objective's stage, with a curve for each model that has it."""
    stages = list(dict.fromkeys(entry.get("stage", "") for model in models for entry in model.metrics))
    charts = []
    for stage in stages:
        series = [(m.title, [_point(e) for e in m.metrics if e.get("stage", "") == stage]) for m in models]
        charts.append(curves(f"Loss in stage {stage}", series, "step of the stage"))
    return f'<h2>Learning curves</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def _point(entry: Mapping[str, float]) -> tuple[float, float]:
    return float(entry.get("stage_step", entry["step"])), float(entry["loss"])


def _films(models: Sequence[Model]) -> str:
    figures = []
    for row, record in _chosen_films(models):
        outcome = f"success after {record.steps} steps" if record.success else f"no success in {record.steps} steps"
        caption = f"<b>{escape(row.model.title)}</b>, {escape(row.asked)}, {escape(words(record.job.split))}: "
        caption += f"“{escape(record.instruction)}” – {outcome}"
        figures.append(
            f'<figure class="film"><figcaption>{caption}</figcaption><img alt="{escape(record.instruction)}" '
            f'src="{strip(row.model.folder / record.film)}"></figure>'
        )
    if not figures:
        return ""
    note = '<p class="note">Magenta: the mask that the model reads. White: the prompt. Left to right: start to end.</p>'
    return f"<h2>Episodes</h2>{note}{''.join(figures)}"


def _chosen_films(models: Sequence[Model]) -> list[tuple[Row, Record]]:
    """At most ``STRIPS`` kept episodes: bases and rows in turn, prompted ones first, other tasks and splits."""
    kept = {
        row: [r for r in row.model.results.records if r.film and r.job.prompt == row.prompt] for row in rows(models)
    }
    place = {row: number for family in families(models) for number, row in enumerate(rows(family))}
    order = sorted((row for row in kept if kept[row]), key=lambda row: (row.prompt == "none", place[row]))
    chosen: list[tuple[Row, Record]] = []
    seen: set[str] = set()
    for row in order * STRIPS:
        fresh = [r for r in kept[row] if r.film not in seen] if len(chosen) < STRIPS else []
        if fresh:
            places = [(r.job.task, r.job.split) for _, r in chosen]
            record = min(fresh, key=lambda r: (places.count((r.job.task, r.job.split)), not r.success))
            chosen.append((row, record))
            seen.add(record.film)
    return chosen


def _timings(models: Sequence[Model], seconds: Mapping[str, float], elapsed: float) -> str:
    lines = []
    for model in models:
        sessions = model.results.notes.get("sessions", [])
        spent, episodes = (sum(session[key] for session in sessions) for key in ("seconds", "episodes"))
        parts = {name: sum(r.seconds.get(name, 0) for r in model.results.records) for name in _PARTS}
        total = sum(parts.values()) or 1
        shares = [f"{100 * parts[name] / total:.0f}\u00a0%" for name in _PARTS]
        lines.append([model.title, str(episodes), f"{spent:.0f}\u00a0s", f"{episodes / (spent or 1):.1f}", *shares])
    header = ["evaluation", "episodes", "wall time", "episodes/s", *_PARTS.values()]
    table = plain_table(header, lines)
    if seconds:
        steps = [[command, _duration(taken)] for command, taken in seconds.items()]
        steps.append(["all of it, the trainings side by side", _duration(elapsed)])
        listed = plain_table(["command", "time"], steps)
        table += f"<details><summary>Every command with its time</summary>{listed}</details>"
    return f"<h2>Timings</h2>{table}"


_PARTS = {"env": "simulator", "policy": "model", "segment": "segmenter", "track": "tracker"}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f}\u00a0s" if seconds < 100 else f"{seconds / 60:.1f}\u00a0min"


def _repeat(models: Sequence[Model], seconds: Mapping[str, float]) -> str:
    first = models[0].results
    machine = first.notes.get("machine", {})
    seeds = sorted({record.job.seed for model in models for record in model.results.records})
    facts = [
        f"environment {first.world.get('env', {})}",
        f"seeds {seeds[0]} to {seeds[-1]} for each task and split",
        f"Python {machine.get('python')} on {machine.get('platform')}, {machine.get('cpus')} CPUs",
        ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items()),
    ]
    hashes = [f"{m.title}: checkpoint {str(m.results.method.get('checkpoint', 'unknown'))[:16]}" for m in models]
    listed = "".join(f"<li>{escape(text)}</li>" for text in filter(None, [*facts, *hashes]))
    commands = f"<pre>{escape(chr(10).join(seconds))}</pre>" if seconds else ""
    return f"<h2>How to repeat</h2><ul>{listed}</ul>{commands}"
