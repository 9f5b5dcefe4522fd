"""The parts of a conversion: small LeRobotDatasets that survive a crash, and the dataset they make together.

Beside the wanted folder lies ``.NAME.parts`` with ``source.json`` (what is converted, and how), and for each part its
dataset ``00000`` and then ``00000.json``, which says where the next part begins: a part without that file is made anew.
Parts always hold equally many episodes, so an interrupted conversion gives the same bytes as one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelvla_core.files import atomic_folder, locked, remove_partials, write_json


@dataclass(frozen=True)
class Done:
    """A finished part: its episodes, and how many files and records of the next one were read up to its end."""

    episodes: int
    files: int
    records: int


class Parts:
    """The parts that are finished, in a folder that this process holds."""

    def __init__(self, folder: Path, source: Mapping[str, Any]) -> None:
        self.folder = folder
        remove_partials(folder)
        if _read(folder / "source.json") != source:  # other files or options: nothing of it can be used
            for item in folder.iterdir():
                if item.name[:5].isdigit():
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
            write_json(folder / "source.json", source)
        self.done = list(self._finished())

    def _finished(self) -> Iterator[Done]:
        number = 0
        while (found := _read(self._note(number))) and self.dataset(number).is_dir():
            yield Done(**found)
            number += 1

    @property
    def episodes(self) -> int:
        return sum(one.episodes for one in self.done)

    def dataset(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def _note(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"

    def add(self, done: Done) -> None:
        """Take note that the dataset of the next part is complete."""
        write_json(self._note(len(self.done)), asdict(done))
        self.done.append(done)

    def join(self, out: Path) -> None:
        """Make one dataset of all parts, whole or not at all. Videos are copied as they are, one file for each part."""
        from lerobot.datasets.aggregate import aggregate_datasets

        roots = [self.dataset(number) for number in range(len(self.done))]
        with atomic_folder(out) as partial:
            partial.rmdir()  # LeRobot makes it itself
            if len(roots) == 1:
                roots[0].rename(partial)
                return
            names = [f"rlds/{out.name}"] * len(roots)
            aggregate_datasets(
                names, names[0], roots=roots, aggr_root=partial, concatenate_videos=False, concatenate_data=False
            )


@contextmanager
def parts_of(out: Path, source: Mapping[str, Any]) -> Iterator[Parts]:
    """Hold the folder with the parts of a conversion to ``out``; it stays only while it is of use.

    Raises:
        UserError: another process converts to ``out``.
    """
    folder = out.with_name(f".{out.name}.parts")
    with locked(folder):
        for leftover in out.parent.glob(f".{out.name}.*.partial"):  # of a process that was killed while it joined
            shutil.rmtree(leftover, ignore_errors=True)
        parts = Parts(folder, source)
        try:
            yield parts
        finally:
            if out.exists() or not parts.done:
                shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return None
