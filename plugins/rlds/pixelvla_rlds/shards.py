"""The files of one split of a TFDS folder, in their order, and the episodes in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pixelvla_core.errors import DataError
from pixelvla_rlds.tfrecord import Value, example, records

_NUMBERED = re.compile(r"(\d+)-of-(\d+)$")


@dataclass(frozen=True)
class Episode:
    """One record: its values, words that name it, and where the next one is: in which file, behind how many records."""

    values: dict[str, Value]
    where: str
    files: int
    records: int


def shards(folder: Path, split: str) -> list[Path]:
    """Return the files of a split; others beside them, such as half-made downloads, are passed over.

    Raises:
        DataError: there are none, one is missing, or they belong to different sets.
    """
    pattern = f"*-{split}.tfrecord-*"
    paths = sorted(path for path in folder.glob(pattern) if _NUMBERED.search(path.name))
    if not paths:
        if list(folder.glob(f"*-{split}.array_record-*")):
            raise DataError(f"{folder} holds ArrayRecord files, not TFRecord files. Download the TFRecord version.")
        raise DataError(f"{folder} has no files {pattern}. Name another --split, or download them.")
    sets = sorted({_NUMBERED.sub("", path.name) + path.name.rpartition("-of-")[2] for path in paths})
    if len(sets) > 1:
        raise DataError(
            f"{folder} holds files of {len(sets)} sets: {paths[0].name} and {paths[-1].name}. Keep those of one set."
        )
    _check_complete(paths)
    return paths


def _check_complete(paths: Sequence[Path]) -> None:
    total = int(paths[0].name.rpartition("-of-")[2])
    there = {int(path.name.rpartition("-of-")[0].rpartition("-")[2]) for path in paths}
    if missing := sorted(set(range(total)) - there):
        raise DataError(
            f"{paths[0].parent} lacks {len(missing)} of {total} files, the first with number {missing[0]:05d}. "
            "Download them."
        )


def episodes_of(paths: Sequence[Path], split: str, files: int = 0, behind: int = 0) -> Iterator[Episode]:
    """Yield the episodes of some files from a place on: ``files`` files and ``behind`` records later.

    Raises:
        DataError: a file is damaged, or has more or fewer records than ``dataset_info.json`` says.
    """
    lengths = _lengths(paths[0].parent, split)
    for index, path in enumerate(paths[files:], start=files):
        number = behind if index == files else 0
        for payload in records(path, number):
            where, number = f"Record {number} of {path}", number + 1
            try:
                yield Episode(example(payload), where, index, number)
            except ValueError as error:
                raise DataError(f"{where} is damaged: {error}. Download the file again.") from error
        if len(lengths) == len(paths) and number != lengths[index]:
            raise DataError(
                f"{path} has {number} records, but {lengths[index]} by dataset_info.json. Download the file again."
            )


def _lengths(folder: Path, split: str) -> list[int]:
    """Records of each file, or nothing where ``dataset_info.json`` does not say them."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        return [int(length) for one in info["splits"] if one["name"] == split for length in one["shardLengths"]]
    return []
