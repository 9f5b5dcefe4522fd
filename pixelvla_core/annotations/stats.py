"""What a sidecar holds, in numbers: episodes kept and why others were not, coverage, sizes of masks and of files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import read_manifest, read_tables
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import OK
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file, size

EDGES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Borders of the histogram's bins: shares of the image, roughly doubling."""


@dataclass(frozen=True)
class Stats:
    """Numbers of one sidecar; masks are those of objects to act on (instance 0) in rows with status "ok".

    Attributes:
        episodes: with rows, or with a note of what became of them.
        kept: episodes of these that training uses.
        reasons: reason without its details -> discarded episodes; empty where the sidecar has no notes.
        statuses: status -> rows.
        frames: frames that were looked at.
        masked: frames with a mask.
        areas: masks in each bin between two ``EDGES``.
        bytes: of all files of rows.
    """

    episodes: int
    kept: int
    reasons: dict[str, int]
    statuses: dict[str, int]
    frames: int
    masked: int
    areas: tuple[int, ...]
    bytes: int

    def __str__(self) -> str:
        dropped = self.episodes - self.kept
        each = f", {self.bytes / self.masked:.0f} bytes per annotated frame" if self.masked else ""
        lines = [
            f"{self.episodes} episodes: {self.kept} kept, {dropped} discarded ({_share(dropped, self.episodes)})",
            *(
                f"  {count:>8}  {_share(count, self.episodes):>6}  {reason}"
                for reason, count in sorted(self.reasons.items(), key=lambda each: (-each[1], each[0]))
            ),
            f"{self.frames} frames looked at, {self.masked} with a mask ({_share(self.masked, self.frames)})",
            f"rows: {', '.join(f'{count} {status}' for status, count in sorted(self.statuses.items())) or 'none'}",
            f"{size(self.bytes)} of rows{each}",
            "masks by their share of the image:",
            *(f"  {name:>12}  {count:>8}  {_bar(count, self.areas)}" for name, count in _bins(self.areas)),
        ]
        return "\n".join(line.rstrip() for line in lines)


def stats(folder: Path) -> Stats:
    """Count what a sidecar holds, one file after the other.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = Path(folder)
    manifest, notes = read_manifest(folder), read_episodes(folder)
    statuses, areas = Counter[str](), np.zeros(len(EDGES) - 1, int)
    seen, usable = {note.episode for note in notes}, set[int]()
    frames = masked = 0
    for entry, table in read_tables(folder, manifest):
        statuses.update(table["status"].to_pylist())
        seen.update(table["episode"].unique().to_pylist())
        first = table.filter(pc.field("instance") == 0)
        frames += len(first)
        ok = first.filter((pc.field("status") == OK) & pc.field("mask_counts").is_valid())
        usable.update(ok["episode"].unique().to_pylist())
        masked += len(ok)
        areas += np.histogram(shares(ok, folder / entry["path"]), EDGES)[0]
    return Stats(
        episodes=len(seen),
        kept=sum(note.kept for note in notes) if notes else len(usable),
        reasons=dict(Counter(note.reason.partition(": ")[0] for note in notes if not note.kept)),
        statuses=dict(statuses),
        frames=frames,
        masked=masked,
        areas=tuple(areas.tolist()),
        bytes=sum(entry["bytes"] for entry in manifest["files"]),
    )


def shares(table: pa.Table, path: Path) -> np.ndarray:
    """Return float[N]: which share of its image each mask of a file covers.

    Raises:
        DataError: one of them cannot be.
    """
    columns = (table[name].to_pylist() for name in ("mask_height", "mask_width", "mask_counts"))
    try:
        return np.array([rle.area / (rle.height * rle.width) for rle in map(Rle, *columns)])
    except DataError as error:
        raise DataError(f"{path}: {error} `pixelvla annotations validate` names all such rows.") from error


def draw(found: Stats, picture: Path) -> None:
    """Draw the histogram of the masks' areas."""
    from PIL import Image, ImageDraw

    width, height, left, bottom = 60, 240, 10, 40
    image = Image.new("RGB", (2 * left + width * len(found.areas), height + bottom + 20), "white")
    pen, most = ImageDraw.Draw(image), max(*found.areas, 1)
    for place, (name, count) in enumerate(_bins(found.areas)):
        x, top = left + place * width, 20 + height - round(height * count / most)
        pen.rectangle((x + 4, top, x + width - 4, 20 + height), fill="#4477aa")
        pen.text((x + width / 2, top - 2), str(count), fill="black", anchor="mb")
        pen.text((x + width / 2, height + 24), name, fill="black", anchor="mt")
    pen.text((image.width / 2, height + 42), "share of the image", fill="black", anchor="mt")
    with atomic_file(Path(picture)) as partial:
        image.save(partial, format="PNG")


def _bins(areas: tuple[int, ...]) -> list[tuple[str, int]]:
    names = [f"{100 * low:g}-{100 * high:g} %" for low, high in pairwise(EDGES)]
    return list(zip(names, areas, strict=True))


def _bar(count: int, areas: tuple[int, ...]) -> str:
    return "#" * round(40 * count / max(*areas, 1))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
