"""A sidecar as COCO instances, for tools that know that format; written row by row, so that memory stays flat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pixelvla_core.annotations.reader import read_manifest, read_tables
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import OK
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file

_COLUMNS = ["episode", "frame", "instance", "target", "mask_height", "mask_width", "mask_counts", "score", "status"]


def export_coco(folder: Path, out: Path) -> int:
    """Write one JSON file with an image for each frame that has a usable mask, and return the number of annotations.

    Images are numbered from 1 in the order of episode and frame and carry both, for their pictures lie in the
    dataset; categories are the targets' names, in the order in which they appear.

    Raises:
        DataError: a file of the sidecar is missing or damaged, or a mask cannot be.
    """
    folder, manifest = Path(folder), read_manifest(Path(folder))
    categories: dict[str, int] = {}
    info = {"description": f"{manifest['dataset']}, camera {manifest['camera']}", "version": manifest["fingerprint"]}
    with atomic_file(Path(out)) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps(info)},\n"images": [')
        _write(file, _images(folder, manifest))
        file.write('],\n"annotations": [')
        count = _write(file, _annotations(folder, manifest, categories))
        listed = [{"id": number, "name": name} for name, number in categories.items()]
        file.write(f'],\n"categories": {json.dumps(listed)}}}\n')
    return count


def _write(file: TextIO, items: Iterator[dict[str, Any]]) -> int:
    count = 0
    for item in items:
        file.write(("\n" if not count else ",\n") + json.dumps(item))
        count += 1
    return count


def _numbered(folder: Path, manifest: dict[str, Any]) -> Iterator[tuple[int, bool, dict[str, Any]]]:
    """Usable rows, each with its image's number and whether it is the first on it."""
    number, last = 0, None
    for _, table in read_tables(folder, manifest, _COLUMNS):
        for batch in table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                if row["status"] != OK or row["mask_counts"] is None:
                    continue
                place = (row["episode"], row["frame"])
                first, last = place != last, place
                number += first
                yield number, first, row


def _images(folder: Path, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, first, row in _numbered(folder, manifest):
        if first:
            yield {
                "id": number,
                "file_name": f"{manifest['camera']}/episode-{row['episode']:06d}/frame-{row['frame']:06d}.png",
                "height": row["mask_height"],
                "width": row["mask_width"],
                "episode": row["episode"],
                "frame": row["frame"],
            }


def _annotations(folder: Path, manifest: dict[str, Any], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for identity, (number, _, row) in enumerate(_numbered(folder, manifest), 1):
        rle = _rle(folder, row)
        yield {
            "id": identity,
            "image_id": number,
            "category_id": categories.setdefault(row["target"], len(categories) + 1),
            "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")},
            "area": rle.area,
            "bbox": rle.box,
            "iscrowd": 0,
            "instance": row["instance"],
            "score": row["score"],
        }


def _rle(folder: Path, row: dict[str, Any]) -> Rle:
    """The row's mask, whose run lengths fill it."""
    rle = Rle(row["mask_height"], row["mask_width"], row["mask_counts"])
    try:
        rle.check()
    except DataError as error:
        raise DataError(
            f"{folder}, episode {row['episode']}, frame {row['frame']}: {error} `pixelvla annotations validate` names "
            "all such rows."
        ) from error
    return rle
