"""Every frame decoded once into one flat file of uint8, so that training reads images at the speed of memory.

A store is built under a lock by threads (decoding and resizing leave Python's lock), episode by episode: a build that
was interrupted goes on where it stopped, and a finished store appears by one rename. Shapes: N frames, H, W pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pixelvla_core import files
from pixelvla_core.errors import DataError
from pixelvla_core.files import one_at_a_time, write_text

_TODO, _DONE, _CORRUPT = 0, 1, 2
_BETWEEN_SYNCS = 64

ReadEpisode = Callable[[int], Iterator[np.ndarray]]
"""Yields the frames of one episode in order, uint8[H, W, 3] each; raises DataError if it cannot."""


@dataclass(frozen=True, kw_only=True)
class FrameStore:
    """Decoded frames of a dataset.

    Attributes:
        frames_NHW3: uint8[N, H, W, 3], memory-mapped and read-only.
        corrupt: Episodes that could not be read; their frames mean nothing.
    """

    frames_NHW3: np.ndarray
    corrupt: tuple[int, ...]

    def frame(self, row: int) -> np.ndarray:
        """Return a copy of one frame, uint8[H, W, 3]."""
        return np.array(self.frames_NHW3[row])

    @classmethod
    def open(cls, folder: Path) -> FrameStore | None:
        """Open a finished store, or return None.

        Raises:
            DataError: its file has another size than it should.
        """
        if not (folder / "store.json").exists():
            return None
        meta = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        path, shape = folder / "frames.bin", tuple(meta["shape"])
        if not path.is_file() or path.stat().st_size != np.prod(shape, dtype=np.int64):
            raise DataError(f"The decoded frames in {folder} are damaged. Remove this folder; it will be made again.")
        return cls(frames_NHW3=np.memmap(path, np.uint8, "r", shape=shape), corrupt=tuple(meta["corrupt"]))


def build(
    folder: Path,
    lengths: Sequence[int],
    size: tuple[int, int],
    read: ReadEpisode,
    *,
    workers: int = 2,
    skip_corrupt: bool = False,
) -> FrameStore:
    """Open the store in ``folder``, after building whatever of it is missing.

    Args:
        folder: the store's own folder; its path tells the dataset, camera and size.
        lengths: number of frames of each episode, in the dataset's order.
        size: (H, W) of all frames.
        read: decodes one episode.
        workers: threads.
        skip_corrupt: go on past episodes that cannot be read.

    Raises:
        DataError: an episode cannot be read.
    """
    # Only one process builds; the others wait and then find the store.
    with one_at_a_time(folder.with_name(folder.name + ".lock")):
        found = FrameStore.open(folder)
        if found is None or (found.corrupt and not skip_corrupt):
            _Build(folder, lengths, size, read).run(workers, skip_corrupt)
            found = FrameStore.open(folder)
    assert found is not None
    return found


class _Build:
    """A store in the making: ``frames.bin`` as it will be, and ``done.bin`` with one byte per episode."""

    def __init__(self, folder: Path, lengths: Sequence[int], size: tuple[int, int], read: ReadEpisode) -> None:
        self.folder, self.partial = folder, folder.with_name(folder.name + ".partial")
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.shape = (int(self.offsets[-1]), *size, 3)
        self.read = read

    def run(self, workers: int, skip_corrupt: bool) -> None:
        if self.folder.exists():
            self.folder.rename(self.partial)
            (self.partial / "store.json").unlink()
        self.partial.mkdir(parents=True, exist_ok=True)
        frames = _reserve(self.partial / "frames.bin", int(np.prod(self.shape, dtype=np.int64)))
        done = _reserve(self.partial / "done.bin", len(self.offsets) - 1)
        try:
            self._decode(frames, _Marks(frames, done), workers, skip_corrupt)
            corrupt = np.flatnonzero(self._state(done) == _CORRUPT).tolist()
        finally:
            os.close(done)
            os.close(frames)
        write_text(self.partial / "store.json", json.dumps({"shape": self.shape, "corrupt": corrupt}))
        self.partial.rename(self.folder)

    def _state(self, done: int) -> np.ndarray:
        return np.frombuffer(os.pread(done, len(self.offsets), 0), np.uint8)

    def _decode(self, frames: int, marks: _Marks, workers: int, skip_corrupt: bool) -> None:
        state = self._state(marks.done)
        todo = np.flatnonzero(state == _TODO if skip_corrupt else state != _DONE).tolist()
        pool = ThreadPoolExecutor(workers)
        try:
            jobs = {pool.submit(self._copy, frames, episode): episode for episode in todo}
            for job in as_completed(jobs):
                error = job.exception()
                if error is not None and not (skip_corrupt and isinstance(error, DataError)):
                    raise error
                marks.add(jobs[job], _DONE if error is None else _CORRUPT)
        finally:
            pool.shutdown(cancel_futures=True)
            marks.flush()

    def _copy(self, frames: int, episode: int) -> None:
        start, stop = self.offsets[episode], self.offsets[episode + 1]
        size = int(np.prod(self.shape[1:]))
        count = 0
        for count, frame in enumerate(self.read(episode), 1):
            if frame.shape != self.shape[1:] or count > stop - start:
                raise DataError(
                    f"Frame {count - 1} of episode {episode} has shape {frame.shape}; expected {stop - start} frames "
                    f"of {self.shape[1:]}. Leave the episode out, or set image_size to store one size."
                )
            os.pwrite(frames, frame.tobytes(), int(start + count - 1) * size)
        if count != stop - start:
            raise DataError(f"Episode {episode} has {count} images for {stop - start} rows. Leave the episode out.")


@dataclass
class _Marks:
    """Which episodes are done. A mark reaches the disk after its frames, so that even a power cut loses none."""

    frames: int
    done: int
    waiting: dict[int, int] = field(default_factory=dict)

    def add(self, episode: int, mark: int) -> None:
        self.waiting[episode] = mark
        if len(self.waiting) >= _BETWEEN_SYNCS:
            self.flush()

    def flush(self) -> None:
        os.fsync(self.frames)
        for episode, mark in self.waiting.items():
            os.pwrite(self.done, bytes([mark]), episode)
        self.waiting.clear()


def _reserve(path: Path, size: int) -> int:
    """Open a file for random writing with its space reserved, so that a full disk is an error now and not a crash."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in files.FULL:
            raise
        path.unlink()
        free = shutil.disk_usage(path.parent).free
        raise DataError(
            f"The decoded frames take {files.size(size)}, but the disk of {path.parent} has {files.size(free)} left "
            f"({error.strerror}). Free some space, name another folder with `cache` or PIXELVLA_CACHE, store smaller "
            "frames with `image_size`, or set frames=direct."
        ) from error
    return descriptor
