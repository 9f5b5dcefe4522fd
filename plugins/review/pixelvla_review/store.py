"""Decisions: logged first, applied after, and applied by the next start if a process dies in between.

A decision is a line of ``decisions.jsonl``; the episode's rows before and after it lie beside the log in Parquet, so
that it can be applied again and undone without any model. The manifest counts the decisions that it contains.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.edit import replace_rows, rows_of_episode, shard_of
from pixelvla_core.annotations.episodes import EpisodeNote, read_episodes
from pixelvla_core.annotations.reader import read_manifest, read_shard
from pixelvla_core.annotations.schema import OK, REVIEW, SCHEMA, Annotation, from_dict, to_table
from pixelvla_core.errors import DataError, UserError
from pixelvla_core.files import atomic_file, full_disk_is_user_error

LOG, STATES, APPLIED = "decisions.jsonl", "decisions", "decisions_applied"
REJECTED = "rejected"
_SHARDS = 4
"""Shards that are kept in memory."""


class Store:
    """A sidecar under review; hold ``pixelvla_core.files.locked`` on its folder.

    Args:
        folder: the sidecar.
        who: name that the log gets.

    Raises:
        DataError: sidecar or log are damaged.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.folder, self.who = Path(folder), who
        self.manifest = read_manifest(self.folder)
        self._shards: OrderedDict[str, pa.Table] = OrderedDict()
        self.log = _read_log(self.folder / LOG)
        self.notes: dict[int, EpisodeNote] = {}
        self.replayed = self._replay()
        self.has_notes = bool(notes := read_episodes(self.folder))
        self.notes = {note.episode: note for note in notes or self._derived()}
        if not self.has_notes:
            self.notes |= {record["episode"]: EpisodeNote(**record["to"]) for record in self.log}

    @property
    def followed(self) -> bool:
        """Whether the annotation carried masks through episodes; discarded ones may have a mask on one frame alone."""
        tools = self.manifest.get("tools")
        made = tools.get("annotate") if isinstance(tools, dict) else None
        return bool(made.get("tracker")) if isinstance(made, dict) else False

    def order(self) -> list[EpisodeNote]:
        """Return all episodes, the least sure first."""
        return sorted(self.notes.values(), key=lambda note: (note.score, note.episode))

    def rows(self, episode: int) -> list[Annotation]:
        """Return the rows of one episode.

        Raises:
            DataError: there is no such episode, or its shard is damaged.
        """
        if episode not in self.notes:
            raise DataError(f"There is no episode {episode} in {self.folder}.")
        return [from_dict(row) for row in rows_of_episode(self._shard(episode), episode).to_pylist()]

    def decided(self) -> dict[int, str]:
        """Return the last decision on each episode that was not undone."""
        return {record["episode"]: record["what"] for record in self._standing()}

    def keep(self, episode: int) -> EpisodeNote:
        """Let training use the episode's masks.

        Raises:
            UserError: it has none.
        """
        before = self.rows(episode)
        if not any(row.mask for row in before):
            raise UserError(f"Episode {episode} has no mask to keep. Redraw it (d), or reject it (r).")
        after = [replace(row, status=OK) if row.mask else row for row in before]
        return self._decide(episode, "keep", after, replace(self.notes[episode], kept=True, reason=""))

    def reject(self, episode: int) -> EpisodeNote:
        """Keep the episode from training."""
        after = [replace(row, status=REVIEW) if row.status == OK else row for row in self.rows(episode)]
        return self._decide(episode, "reject", after, replace(self.notes[episode], kept=False, reason=REJECTED))

    def redraw(self, episode: int, rows: Sequence[Annotation], prompts: Mapping[str, Any]) -> EpisodeNote:
        """Replace the episode's rows by what a person drew."""
        note = replace(self.notes[episode], kept=True, reason="", score=1.0)
        return self._decide(episode, "redraw", rows, note, prompts)

    def undo(self) -> EpisodeNote | None:
        """Take back the last decision that stands, and return its episode; None if there is none."""
        if not (standing := self._standing()):
            return None
        last = standing[-1]
        rows = self._state(last["number"], "before")
        return self._decide(last["episode"], "undo", rows, EpisodeNote(**last["from"]), of=last["number"])

    def _standing(self) -> list[dict[str, Any]]:
        undone = {record["of"] for record in self.log if record["what"] == "undo"}
        return [record for record in self.log if record["what"] != "undo" and record["number"] not in undone]

    def _decide(
        self,
        episode: int,
        what: str,
        rows: Sequence[Annotation],
        note: EpisodeNote,
        prompts: Mapping[str, Any] | None = None,
        of: int | None = None,
    ) -> EpisodeNote:
        kept = "Decisions before this one stay."
        with full_disk_is_user_error(self.folder, kept, "decide again"):
            self._replay()  # one that a full disk kept from being applied comes before this one
            record = self._record(episode, what, rows, note, prompts, of)
            _append(self.folder / LOG, record)
            self.log.append(record)
            self._apply(record)
        return note

    def _record(
        self,
        episode: int,
        what: str,
        rows: Sequence[Annotation],
        note: EpisodeNote,
        prompts: Mapping[str, Any] | None,
        of: int | None,
    ) -> dict[str, Any]:
        """Save the rows before and after a decision, and return its line of the log."""
        number = len(self.log)
        self._save(number, "before", self.rows(episode))
        self._save(number, "after", rows)
        record: dict[str, Any] = {
            "number": number,
            "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": self.who,
            "episode": episode,
            "what": what,
            "from": asdict(self.notes[episode]),
            "to": asdict(note),
        }
        record |= {"prompts": prompts} if prompts else {}
        return record | ({} if of is None else {"of": of})

    def _replay(self) -> int:
        missing = self.log[self.manifest.get(APPLIED, 0) :]
        for record in missing:
            self._apply(record)
        return len(missing)

    def _apply(self, record: Mapping[str, Any]) -> None:
        rows = self._state(record["number"], "after")
        marks = {APPLIED: record["number"] + 1}
        note = EpisodeNote(**record["to"])
        replace_rows(self.folder, record["episode"], rows, note, marks)
        self.manifest = read_manifest(self.folder)
        self.notes[record["episode"]] = note

    def _shard(self, episode: int) -> pa.Table:
        entry = shard_of(self.manifest, episode)
        if entry["path"] not in self._shards:
            self._shards[entry["path"]] = read_shard(self.folder, entry)
            while len(self._shards) > _SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(entry["path"])
        return self._shards[entry["path"]]

    def _derived(self) -> Iterable[EpisodeNote]:
        """What the rows alone say of the episodes of a sidecar without notes."""
        for entry in self.manifest["files"]:
            table = read_shard(self.folder, entry).select(["episode", "target", "status", "score"])
            rows: dict[int, list[dict[str, Any]]] = {}
            for row in table.to_pylist():
                rows.setdefault(row["episode"], []).append(row)
            for episode, found in rows.items():
                kept = any(row["status"] == OK for row in found)
                yield EpisodeNote(
                    episode=episode,
                    kept=kept,
                    reason="" if kept else "no usable mask",
                    target=found[0]["target"],
                    score=min((row["score"] for row in found if row["status"] == OK), default=0.0),
                )

    def _path(self, number: int, side: str) -> Path:
        return self.folder / STATES / f"{number:06d}-{side}.parquet"

    def _save(self, number: int, side: str, rows: Iterable[Annotation]) -> None:
        with atomic_file(self._path(number, side)) as partial:
            pq.write_table(to_table(rows), partial, compression="zstd")

    def _state(self, number: int, side: str) -> list[Annotation]:
        path = self._path(number, side)
        try:
            return [from_dict(row) for row in pq.read_table(path, schema=SCHEMA).to_pylist()]
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}, which {LOG} needs, cannot be read: {error}. Copy the sidecar again.") from error


def _append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line, on disk when this returns; nothing of it where there is no room for all of it."""
    with path.open("ab") as file:
        before = file.tell()
        try:
            file.write((json.dumps(record, sort_keys=True) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Return the decisions; a last line that a killed process left half-written is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Remove the damaged line and what follows it.") from error
