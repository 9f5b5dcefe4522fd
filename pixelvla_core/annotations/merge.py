"""Several sidecars of one dataset and camera, each about other episodes, as one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixelvla_core.annotations.episodes import EPISODES, EpisodeNote, read_episodes, write_episodes
from pixelvla_core.annotations.index import COLUMNS, checked_keys, indices_of
from pixelvla_core.annotations.reader import read_manifest, read_shard, read_tables
from pixelvla_core.annotations.schema import MANIFEST
from pixelvla_core.annotations.writer import ROWS
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_folder, check_target, sha256, write_json

_SAME = ("dataset", "revision", "fingerprint", "camera")


@dataclass(frozen=True)
class _File:
    """One file of rows: where it is, its manifest entry, the episodes that it has rows of, and their statuses."""

    folder: Path
    entry: dict[str, Any]
    episodes: tuple[int, ...]
    statuses: Counter[str]

    @property
    def span(self) -> tuple[int, int]:
        """First and last episode, as planned or as found."""
        first, last = self.entry.get("episodes") or (self.episodes[0], self.episodes[-1])
        return min(first, self.episodes[0]), max(last, self.episodes[-1])


def merge(folders: Sequence[Path], out: Path) -> Path:
    """Write one sidecar with the episodes of all.

    Files are copied as they are; only those whose ranges of episodes interleave are written anew, sorted. The manifest
    keeps the tools of each where they differ.

    Raises:
        DataError: they are of different datasets or cameras, an episode is in two, one is damaged, or only some say
            what became of their episodes.
        UserError: the folder to write to holds something else.
    """
    folders, out = [Path(folder) for folder in folders], Path(out)
    if len(folders) < 2:
        raise DataError("Merging takes at least two sidecars. Give the folder of each.")
    check_target(out, "an empty folder")
    manifests = [read_manifest(folder) for folder in folders]
    _check_same(folders, manifests)
    notes = [read_episodes(folder) for folder in folders]
    _check_notes(folders, notes)
    files = [list(_files(folder, manifest)) for folder, manifest in zip(folders, manifests, strict=True)]
    _check_disjoint(folders, files, notes)
    together = [file for each in files for file in each]
    with atomic_folder(out) as partial:
        entries = [_write(group, partial) for group in _groups(together)]
        manifest = _manifest(folders, manifests, entries)
        manifest["counts"] = _counts(manifests, together)
        if all_notes := [note for each in notes for note in each]:
            manifest["episodes"] = write_episodes(partial, all_notes)
        write_json(partial / MANIFEST, manifest)
    return out


def _check_same(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> None:
    for key in _SAME:
        values = {str(folder): manifest.get(key) for folder, manifest in zip(folders, manifests, strict=True)}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{folder}: {value!r}" for folder, value in values.items())
            raise DataError(
                f"Only sidecars of one dataset and camera can be merged; these differ in {key} ({said}). "
                "Annotate the same revision with the same camera."
            )


def _check_notes(folders: Sequence[Path], notes: Sequence[Sequence[EpisodeNote]]) -> None:
    silent = [str(folder) for folder, each in zip(folders, notes, strict=True) if not each]
    if silent and len(silent) < len(folders):
        raise DataError(
            f"{', '.join(silent)} has no {EPISODES}, the others have: whether its episodes are kept would be lost in "
            "the merged sidecar. Merge those that have one with each other, and those that have none."
        )


def _files(folder: Path, manifest: dict[str, Any]) -> Iterator[_File]:
    last = -1
    for entry, table in read_tables(folder, manifest, COLUMNS):
        keys = checked_keys(folder / entry["path"], table, last)
        last = int(keys[-1]) if len(keys) else last
        episodes = tuple(np.unique(indices_of(keys)[0]).tolist())
        yield _File(folder, entry, episodes, Counter(table["status"].to_pylist()))


def _check_disjoint(
    folders: Sequence[Path], files: Sequence[Sequence[_File]], notes: Sequence[Sequence[EpisodeNote]]
) -> None:
    owner: dict[int, Path] = {}
    for folder, each, said in zip(folders, files, notes, strict=True):
        own = {episode for file in each for episode in file.episodes} | {note.episode for note in said}
        if twice := sorted(own & owner.keys()):
            named = ", ".join(map(str, twice[:10])) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
            raise DataError(
                f"Episodes {named} are in both {owner[twice[0]]} and {folder}. Each episode must come from one "
                "sidecar; annotate disjoint lists of episodes."
            )
        owner |= dict.fromkeys(own, folder)


def _groups(files: list[_File]) -> list[list[_File]]:
    """Files in order of their episodes, those together whose ranges overlap."""
    groups: list[list[_File]] = []
    last = -1
    for file in sorted((file for file in files if file.episodes), key=lambda file: file.span):
        if not groups or file.span[0] > last:
            groups.append([])
        groups[-1].append(file)
        last = max(last, file.span[1])
    return groups


def _write(group: list[_File], out: Path) -> dict[str, Any]:
    """Copy one file, or write several as one; return the manifest entry."""
    first, last = min(file.span[0] for file in group), max(file.span[1] for file in group)
    path = out / ROWS / f"episodes-{first:06d}-{last:06d}.parquet"
    path.parent.mkdir(exist_ok=True)
    tables = [read_shard(file.folder, file.entry) for file in group]
    if len(group) == 1:
        shutil.copyfile(group[0].folder / group[0].entry["path"], path)
    else:
        order = [(name, "ascending") for name in ("episode", "frame", "instance")]
        table = pa.concat_tables(tables).sort_by(order)
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return {
        "path": path.relative_to(out).as_posix(),
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "rows": sum(map(len, tables)),
        "episodes": [first, last],
    }


def _manifest(folders: Sequence[Path], manifests: Sequence[dict[str, Any]], entries: list[dict]) -> dict[str, Any]:
    tools = [manifest.get("tools", {}) for manifest in manifests]
    merged = [
        {"manifest_sha256": sha256(folder / MANIFEST), "episodes": manifest["counts"].get("episodes"), "tools": used}
        for folder, manifest, used in zip(folders, manifests, tools, strict=True)
    ]
    same = all(used == tools[0] for used in tools)
    kept = {key: manifests[0][key] for key in ("format", "version", *_SAME) if key in manifests[0]}
    return {**kept, "tools": tools[0] if same else {"merged": merged}, "files": entries}


def _counts(manifests: Sequence[dict[str, Any]], files: Sequence[_File]) -> dict[str, int]:
    """As many episodes as were looked at, and the rows that there are."""
    statuses = sum((file.statuses for file in files), Counter[str]())
    episodes = sum(manifest["counts"].get("episodes", 0) for manifest in manifests)
    return {"episodes": episodes, "rows": statuses.total(), **dict(sorted(statuses.items()))}
