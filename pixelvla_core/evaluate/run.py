"""``evaluate``: measure a run's success in closed loop."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pixelvla_core.errors import UserError
from pixelvla_core.evaluate import results as files
from pixelvla_core.evaluate.plan import PROTOCOL, Plan, prepare
from pixelvla_core.evaluate.pool import Pool
from pixelvla_core.evaluate.records import Job, Journal, Record
from pixelvla_core.evaluate.results import Results
from pixelvla_core.evaluate.table import progress, show
from pixelvla_core.files import locked, write_json
from pixelvla_core.plugins import PluginManager, Registry


def evaluate(
    run: Path | str,
    *,
    out: Path | str | None = None,
    name: str = "",
    quiet: bool = False,
    registry: Registry | None = None,
    overrides: Sequence[str] = (),
    **options: Any,
) -> Results:
    """Measure a run's success in closed loop, print it, and write results.json.

    An evaluation that was stopped goes on where it was, and one that is asked for more episodes, prompts or splits runs
    only what is new.

    Args:
        run: A checkpoint folder, or a run, of which the newest sound checkpoint is taken.
        out: Folder for results.json, its journal and the kept frames; ``eval`` in the run by default.
        name: What to call the model in tables; by default the run's name.
        quiet: Print neither progress nor table.
        registry: Where parts are looked up; by default every installed one.
        overrides: ``key=value`` for the model's own options that do not change what its weights mean, such as
            ``backbone.options.NAME=VALUE``; see ``checkpoint.load``.
        options: Fields of ``pixelvla_core.recipe.Evaluate`` (env, tasks, splits, episodes, prompts, segmenter, tracker,
            execute, workers, seed), which override those of the run's recipe, and of ``Running`` (slots, device,
            films). Parts may be given by name; the segmenter "oracle" is the environment's exact mask.

    Returns:
        The results of every episode in ``out``.

    Raises:
        UserError: an option, part, task or split does not exist, or ``out`` has results of another protocol.
    """
    run = Path(run)
    out = Path(out) if out is not None else run / "eval"
    registry = PluginManager.load().registry if registry is None else registry
    return measure(prepare(run, out, name or run.resolve().name, registry, options, overrides), quiet=quiet)


def measure(plan: Plan, *, quiet: bool = False) -> Results:
    """Run what is not finished yet, write results.json and print the table."""
    out = plan.setup.out
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        journal = Journal(out / "episodes.jsonl")
        found = journal.read()
        _check_protocol(plan, out / PROTOCOL, begun=bool(found))
        done = {record.job.key for record in found}
        todo = [job for job in plan.jobs if job.key not in done]
        start, started = time.perf_counter(), datetime.now(UTC)
        found += _run(plan, todo, journal, quiet) if todo else []
        session = _session(plan, started, time.perf_counter() - start, len(todo))
        earlier = _earlier_sessions(out / "results.json")
        notes = {**plan.notes, "sessions": [*earlier, session] if todo else earlier}
        results = Results(world=plan.world, method=plan.method, records=_ordered(plan, found), notes=notes)
        files.save(results, out / "results.json")
    if not quiet:
        show(results)
    return results


def _check_protocol(plan: Plan, path: Path, *, begun: bool) -> None:
    """Refuse to add to a folder whose episodes were run otherwise; one where none has finished begins anew."""
    protocol = json.loads(json.dumps({"world": plan.world, "method": plan.method}))
    found = _read_protocol(path) if path.exists() else {}
    if not begun or not found:
        write_json(path, protocol)
        return
    for part, wanted in protocol.items():
        files.check_same(
            part, found[part], wanted, f"{path.parent} already has episodes. Give another --out, or delete it."
        )


def _read_protocol(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {part: dict(found[part]) for part in ("world", "method")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not say how the episodes beside it were run ({error!r}): it is damaged, or of another "
            "version. Give another --out, or delete that folder."
        ) from error


def _run(plan: Plan, todo: Sequence[Job], journal: Journal, quiet: bool) -> list[Record]:
    found: list[Record] = []
    start = time.perf_counter()
    with progress(quiet) as bar, closing(Pool(plan.setup, todo, plan.workers).run()) as records:
        line = bar.add_task(str(plan.notes.get("name", "episodes")), total=len(todo), rate="")
        for record in records:
            journal.append(record)
            found.append(record)
            share = sum(item.success for item in found) / len(found)
            rate = f"{len(found) / (time.perf_counter() - start):.1f} episodes/s, {share:.0%} succeed"
            bar.update(line, advance=1, rate=rate)
    return found


def _ordered(plan: Plan, records: Sequence[Record]) -> tuple[Record, ...]:
    """Sort into the order of the plan, so that the file does not depend on which worker was faster."""
    place = {job.key: number for number, job in enumerate(plan.jobs)}
    return tuple(sorted(records, key=lambda record: (place.get(record.job.key, len(place)), record.job.key)))


def _session(plan: Plan, started: datetime, seconds: float, episodes: int) -> dict[str, Any]:
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "episodes": episodes,
        "episodes_per_second": round(episodes / seconds, 3),
        "workers": plan.workers,
        "slots": plan.setup.slots,
    }


def _earlier_sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions that results.json tells of; one that cannot be read makes room and is kept beside.

    Every episode is in the journal, so nothing but what is known of these sessions depends on it.
    """
    if not path.exists():
        return []
    try:
        return list(files.load(path).notes.get("sessions", []))
    except UserError as error:
        kept = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}.unreadable")
        path.rename(kept)
        warnings.warn(f"{error} It is kept as {kept.name}; the episodes are in the journal.", stacklevel=2)
        return []
