"""Checking a whole sidecar, file by file and row by row, against its manifest and its dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelvla_core.annotations.derive import extent
from pixelvla_core.annotations.episodes import EpisodeNote, file_of, read_episodes, wrong_file
from pixelvla_core.annotations.reader import read_manifest, read_shard
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, FAILED, MOST_FRAMES, OK, STATUSES, Annotation, from_dict
from pixelvla_core.annotations.writer import ROWS
from pixelvla_core.errors import UserError, suggest
from pixelvla_core.prompts import Box

_EDGE = 1e-4
"""Coordinates are stored in float32."""


def validate(folder: Path, *, fingerprint: str | None = None, lengths: Sequence[int] | None = None) -> list[str]:
    """Check a sidecar.

    Args:
        folder: the sidecar.
        fingerprint: of the dataset it should belong to; not compared if left out.
        lengths: number of frames of each episode of the dataset, to find rows that belong to no frame.

    Returns:
        One line per problem; empty if all is well.

    Raises:
        DataError: there is no readable manifest.
    """
    manifest = read_manifest(folder)
    return list(_problems(Path(folder), manifest, fingerprint, lengths))


def _problems(
    folder: Path, manifest: Mapping[str, Any], fingerprint: str | None, lengths: Sequence[int] | None
) -> Iterator[str]:
    if fingerprint is not None and fingerprint != manifest["fingerprint"]:
        yield (
            f"manifest.json: made for fingerprint {manifest['fingerprint'][:12]}, the dataset has {fingerprint[:12]}: "
            "the data changed, or it is another dataset"
        )
    yield from _stray(folder, manifest)
    counts, last = Counter[str](), (-1, -1, -1)
    usable: dict[int, bool] = {}
    for entry in manifest["files"]:
        try:
            rows = read_shard(folder, entry).to_pylist()
        except UserError as error:
            yield str(error)
            continue
        yield from _entry(entry, rows)
        counts.update(row["status"] for row in rows)
        for row in rows:
            usable[row["episode"]] = usable.get(row["episode"], False) or row["status"] == OK
        for number, row in enumerate(rows):
            key = (row["episode"], row["frame"], row["instance"])
            where = f"{entry['path']}, row {number} (episode {key[0]}, frame {key[1]}, instance {key[2]})"
            if key <= last:
                yield f"{where}: rows are not in the order of episode, frame and instance, or one is there twice"
            last = key
            yield from (f"{where}: {problem}" for problem in _row(row, manifest["camera"], lengths))
    stated = {name: count for name, count in manifest["counts"].items() if name not in ("episodes", "rows")}
    if stated != dict(counts):
        yield f"manifest.json: counts {stated}, the files hold {dict(counts)}"
    yield from _episodes(folder, manifest, usable, lengths)


def _entry(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Check what the manifest says of a file that is whole."""
    if entry.get("rows", len(rows)) != len(rows):
        yield f"{entry['path']}: {len(rows)} rows, the manifest says {entry['rows']}"
    found, said = {row["episode"] for row in rows}, entry.get("episodes")
    if said is not None and found and not (len(said) == 2 and said[0] <= min(found) <= max(found) <= said[1]):
        yield f"{entry['path']}: episodes {min(found)} to {max(found)}, the manifest says {said}"


def _stray(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    listed = {entry["path"] for entry in manifest["files"]}
    for path in sorted((folder / ROWS).rglob("*.parquet")):  # beside them lie the artefacts of the annotation's steps
        if (name := path.relative_to(folder).as_posix()) not in listed:
            yield f"{name}: not in the manifest"


def _episodes(
    folder: Path, manifest: Mapping[str, Any], usable: Mapping[int, bool], lengths: Sequence[int] | None
) -> Iterator[str]:
    """Check what became of each episode; ``usable`` says for every episode with rows whether one is "ok"."""
    name = file_of(manifest)
    if wrong := wrong_file(folder, manifest):
        yield f"{name}: {wrong}"
    if not (folder / name).is_file():
        return
    try:
        notes = read_episodes(folder)
    except UserError as error:
        yield str(error)
        return
    for episode, times in sorted(Counter(note.episode for note in notes).items()):
        if times > 1:
            yield f"{name}: episode {episode} is there {times} times"
    for episode in sorted(usable.keys() - {note.episode for note in notes}):
        yield f"{name}: nothing about episode {episode}, which has rows"
    for note in notes:
        yield from (
            f"{name}, episode {note.episode}: {problem}"
            for problem in _note(note, usable.get(note.episode, False), lengths)
        )


def _note(note: EpisodeNote, usable: bool, lengths: Sequence[int] | None) -> Iterator[str]:
    if note.kept and note.reason:
        yield f"kept, but with the reason {note.reason!r} to discard it"
    if not note.kept and not note.reason:
        yield "discarded without a reason"
    if note.kept != usable:
        yield "kept, but no row is 'ok'" if note.kept else "discarded, but it has rows with status 'ok'"
    if not 0 <= note.score <= 1:
        yield f"score {note.score}; expected 0 to 1"
    if lengths is not None and not 0 <= note.episode < len(lengths):
        yield "the dataset has no such episode"
    elif note.close_frame is not None and not 0 <= note.close_frame < (
        lengths[note.episode] if lengths else MOST_FRAMES
    ):
        yield f"the gripper closes on frame {note.close_frame}, which there is not"
    if note.region is not None:
        try:
            Box(*note.region)
        except (UserError, TypeError) as error:
            yield f"region {note.region}: {error}"


def _row(data: Mapping[str, Any], camera: str, lengths: Sequence[int] | None) -> Iterator[str]:
    try:
        row = from_dict(data)
    except (UserError, TypeError, ValueError) as error:
        yield f"damaged values: {error}"
        return
    if lengths is not None and not (0 <= row.episode < len(lengths) and 0 <= row.frame < lengths[row.episode]):
        yield "the dataset has no such frame"
    if not row.in_bounds:
        yield "an index is negative or too large"
    if row.camera != camera:
        yield f"camera {row.camera!r}, the manifest says {camera!r}"
    if row.status not in STATUSES:
        yield f"status {row.status!r}.{suggest(row.status, STATUSES)} Expected one of {', '.join(STATUSES)}"
    if not 0 <= row.score <= 1:
        yield f"score {row.score}; expected 0 to 1"
    if (row.mask is None and row.status == OK) or (row.mask is not None and row.status in (ABSENT, FAILED)):
        yield f"status {row.status!r} {'without' if row.mask is None else 'with'} a mask"
    if row.mask is not None:
        yield from _mask(row, row.mask)


def _mask(row: Annotation, rle: Rle) -> Iterator[str]:
    try:
        rle.check()
    except UserError as error:
        yield str(error)
        return
    mask = rle.decode()
    if not mask.any():
        yield "the mask is empty"
        return
    if row.box is not None and not _encloses(row.box, mask):
        yield f"{row.box} does not enclose the mask"
    for point in row.points:
        if _at(mask, point.x, point.y) != point.positive:
            yield f"{point} is {'outside' if point.positive else 'inside'} the mask"
    for line in row.lines:
        if not all(_at(mask, x, y) for x, y in line.vertices):
            yield f"{line} leaves the mask"


def _encloses(box: Box, mask: np.ndarray) -> bool:
    top, bottom, left, right = extent(mask)
    height, width = mask.shape
    return (
        box.x0 <= left / width + _EDGE
        and box.y0 <= top / height + _EDGE
        and box.x1 >= right / width - _EDGE
        and box.y1 >= bottom / height - _EDGE
    )


def _at(mask: np.ndarray, x: float, y: float) -> bool:
    height, width = mask.shape
    return bool(mask[min(int(y * height), height - 1), min(int(x * width), width - 1)])
