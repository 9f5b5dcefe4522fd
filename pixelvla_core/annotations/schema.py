"""The sidecar's format: one row per annotated object and frame, and the header that its manifest carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pixelvla_core.annotations.rle import Rle
from pixelvla_core.prompts import Box, Line, Point

FORMAT = "pixelvla-annotations"
VERSION = 1
MANIFEST = "manifest.json"

OK, ABSENT, FAILED, REVIEW = "ok", "absent", "failed", "review"
STATUSES = (OK, ABSENT, FAILED, REVIEW)
"""ok: usable. absent: the target is not in view. failed: the tools found nothing. review: a person shall look."""

MOST_EPISODES, MOST_FRAMES, MOST_INSTANCES = 1 << 20, 1 << 28, 1 << 15
"""Bounds of a row's indices, so that the three fit one 64-bit key."""

SCHEMA = pa.schema(
    [
        pa.field("episode", pa.int32(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("camera", pa.string(), nullable=False),
        pa.field("instance", pa.int16(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("mask_height", pa.int32()),
        pa.field("mask_width", pa.int32()),
        pa.field("mask_counts", pa.binary()),
        pa.field("box", pa.list_(pa.float32())),
        pa.field("points", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("lines", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One object on one frame of one camera.

    Attributes:
        episode: Index of the episode in the dataset.
        frame: Index of the frame in its episode, from 0.
        camera: Camera name, without LeRobot's "observation.images." in front.
        instance: 0 for the object to act on; further objects count up.
        target: What the object is called in the instruction.
        mask: Where it is; None unless ``status`` is "ok" or "review".
        box: Enclosing box.
        points: Clicks on it.
        lines: Strokes on it.
        score: Confidence in [0, 1]; 1 for exact masks.
        status: One of ``STATUSES``.
        source: The tool that made the row.
    """

    episode: int
    frame: int
    camera: str
    target: str
    instance: int = 0
    mask: Rle | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    score: float = 1.0
    status: str = OK
    source: str = ""

    @property
    def key(self) -> tuple[int, int, int]:
        """The order of rows in a sidecar: (episode, frame, instance)."""
        return self.episode, self.frame, self.instance

    @property
    def in_bounds(self) -> bool:
        """Whether the indices are not negative and below their bounds."""
        limits = (MOST_EPISODES, MOST_FRAMES, MOST_INSTANCES)
        return all(0 <= index < limit for index, limit in zip(self.key, limits, strict=True))


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the whole sidecar is about.

    Attributes:
        dataset: Id of the dataset, such as its repo id.
        revision: Its revision, or "".
        fingerprint: Hash of its content, as ``Dataset.fingerprint`` gives it.
        camera: The annotated camera.
        tools: The tools that made the masks, each with version and thresholds.
    """

    dataset: str
    fingerprint: str
    camera: str
    revision: str = ""
    tools: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def to_table(rows: Iterable[Annotation]) -> pa.Table:
    """Return the rows as an Arrow table of ``SCHEMA``."""
    return pa.Table.from_pylist([_to_dict(row) for row in rows], SCHEMA)


def _to_dict(row: Annotation) -> dict[str, Any]:
    data = {name: getattr(row, name) for name in _PLAIN}
    if row.mask is not None:
        data |= {"mask_height": row.mask.height, "mask_width": row.mask.width, "mask_counts": row.mask.counts}
    data["box"] = None if row.box is None else [row.box.x0, row.box.y0, row.box.x1, row.box.y1]
    data["points"] = [[point.x, point.y, 1.0 if point.positive else 0.0] for point in row.points]
    data["lines"] = [[value for vertex in line.vertices for value in vertex] for line in row.lines]
    return data


def from_dict(data: Mapping[str, Any]) -> Annotation:
    """Build a row from one row of ``SCHEMA`` as plain Python values."""
    counts = data["mask_counts"]
    return Annotation(
        **{name: data[name] for name in _PLAIN},
        mask=None if counts is None else Rle(data["mask_height"], data["mask_width"], counts),
        box=None if data["box"] is None else Box(*data["box"]),
        points=tuple(Point(x, y, positive > 0.5) for x, y, positive in data["points"]),
        lines=tuple(Line(tuple(zip(flat[::2], flat[1::2], strict=True))) for flat in data["lines"]),
    )


_PLAIN = ("episode", "frame", "camera", "instance", "target", "score", "status", "source")
