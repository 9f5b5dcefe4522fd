"""Annotations from a simulator's own segmentation: exact masks, and prompts derived from them.

The simulator leaves a stream beside the dataset, ``DATASET.masks.jsonl``, one line per episode::

    {"episode": 0, "camera": "observation.images.front", "size": [224, 224],
     "target": "red cube", "target_masks": ["<COCO counts>", null, ...],
     "reference": "blue bowl", "reference_masks": [...] or null}

with one entry per frame, null where the object cannot be seen. Other keys are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixelvla_core.annotations.derive import derive_box, derive_line, derive_point
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, Annotation, Header
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.errors import DataError
from pixelvla_core.files import sha256

SOURCE = "oracle"
_PREFIX = "observation.images."
"""What LeRobot puts before a camera's name."""

_OBJECTS = ("target", "reference")
"""Objects of an episode, in the order of their instance numbers."""


def annotate(
    masks: Path,
    out: Path,
    *,
    dataset: str,
    fingerprint: str,
    camera: str,
    lengths: Sequence[int],
    revision: str = "",
    seed: int = 0,
    episodes_per_shard: int = 100,
) -> Path:
    """Turn a stream of exact masks into a sidecar; a second call goes on where an interrupted one stopped.

    Args:
        masks: the stream.
        out: the sidecar's folder.
        dataset: the dataset's id.
        fingerprint: hash of its content.
        camera: camera name without LeRobot's prefix.
        lengths: number of frames of each of its episodes.
        revision: the dataset's revision.
        seed: of the prompts; each episode draws from its own generator, so that shards do not depend on each other.
        episodes_per_shard: how many go into one file.

    Returns:
        The sidecar's folder.

    Raises:
        DataError: the stream is damaged, or does not fit the dataset.
    """
    stream = read_stream(masks, camera)
    _check_lengths(stream, lengths, masks)
    tools = {SOURCE: {"masks_sha256": sha256(masks), "seed": seed}}
    header = Header(dataset=dataset, fingerprint=fingerprint, camera=camera, revision=revision, tools=tools)
    writer = SidecarWriter(out, header, stream, episodes_per_shard)
    for shard in writer.missing():
        writer.write(shard, [row for episode in shard for row in _rows(stream[episode], camera, seed)])
    return writer.finish()


def read_stream(path: Path, camera: str) -> dict[int, dict[str, Any]]:
    """Read a stream of exact masks: episode -> line.

    Raises:
        DataError: it is missing, a line is damaged, or it is of another camera.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(
            f"There are no masks in {path}. Record the demonstrations again; the recorder writes it."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error}). Record the demonstrations again.") from error
    stream: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        row = _parse(line, f"Line {number} of {path}")
        if row["camera"].removeprefix(_PREFIX) != camera:
            raise DataError(f"Line {number} of {path} is about camera {row['camera']!r}; expected {camera!r}.")
        stream[row["episode"]] = row
    return stream


def _parse(line: str, where: str) -> dict[str, Any]:
    wanted = {"episode": int, "camera": str, "size": list, "target": str, "target_masks": list}
    try:
        row = json.loads(line)
        wrong = [key for key, kind in wanted.items() if not isinstance(row[key], kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} is damaged ({type(error).__name__}: {error}). Record the demonstrations again."
        ) from error
    if wrong:
        raise DataError(f"{where} has {wrong[0]} = {row[wrong[0]]!r}; expected {wanted[wrong[0]].__name__}.")
    if len(row["size"]) != 2 or not all(isinstance(side, int) and side > 0 for side in row["size"]):
        raise DataError(f"{where} has size = {row['size']!r}; expected height and width in pixels.")
    for name in _OBJECTS:
        _check_object(row, name, where)
    return row


def _check_object(row: Mapping[str, Any], name: str, where: str) -> None:
    """Each object has a name, and on every frame run lengths or null; the reference may be left out."""
    masks = row.get(f"{name}_masks")
    if masks is None:
        return
    if not isinstance(row.get(name), str):
        raise DataError(f"{where} has {name}_masks, but {name} = {row.get(name)!r}; expected the object's name.")
    frames = len(row["target_masks"])
    if not isinstance(masks, list) or len(masks) != frames:
        found = f"{len(masks)} masks" if isinstance(masks, list) else repr(masks)
        raise DataError(f"{where} has {found} in {name}_masks; expected {frames}, one for each frame.")
    for frame, counts in enumerate(masks):
        if counts is not None and not (isinstance(counts, str) and counts.isascii()):
            raise DataError(f"{where} has {counts!r} in {name}_masks, frame {frame}; expected run lengths or null.")


def _check_lengths(stream: Mapping[int, Mapping[str, Any]], lengths: Sequence[int], path: Path) -> None:
    for episode, length in enumerate(lengths):
        found = len(stream[episode]["target_masks"]) if episode in stream else 0
        if found != length:
            raise DataError(
                f"{path} has {found} masks for episode {episode}, which has {length} frames. "
                "The masks and the dataset come from two recordings; record them together."
            )
    if extra := sorted(set(stream) - set(range(len(lengths)))):
        raise DataError(f"{path} has masks for episode {extra[0]}, but the dataset has {len(lengths)} episodes.")


def _rows(line: Mapping[str, Any], camera: str, seed: int) -> Iterator[Annotation]:
    rng = np.random.default_rng([seed, line["episode"]])
    for instance, name in enumerate(_OBJECTS):
        for frame, counts in enumerate(line.get(f"{name}_masks") or ()):
            facts = {"episode": line["episode"], "frame": frame, "camera": camera, "instance": instance}
            yield _row(facts | {"target": line[name], "source": SOURCE}, line["size"], counts, rng)


def _row(facts: dict[str, Any], size: Sequence[int], counts: str | None, rng: np.random.Generator) -> Annotation:
    if counts is None:
        return Annotation(**facts, status=ABSENT, score=1.0)
    rle = Rle(size[0], size[1], counts.encode("ascii"))
    try:
        rle.check()
    except DataError as error:
        raise DataError(f"Episode {facts['episode']}, frame {facts['frame']}, {facts['target']!r}: {error}") from error
    mask = rle.decode()
    if not mask.any():
        raise DataError(
            f"The mask of {facts['target']!r} in episode {facts['episode']}, frame {facts['frame']} has no pixel. "
            "Where an object cannot be seen, the stream has null; record the demonstrations again."
        )
    return Annotation(
        **facts,
        mask=rle,
        box=derive_box(mask),
        points=(derive_point(mask, rng),),
        lines=(derive_line(mask, rng),),
    )
