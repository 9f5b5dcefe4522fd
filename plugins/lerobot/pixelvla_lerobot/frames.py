"""Every frame decoded once into one flat file of uint8, so that training reads images at the speed of memory.

A store is built under a lock by threads (decoding and resizing leave Python's lock), episode by episode: a build that
was interrupted goes on where it stopped, and a finished store appears by one rename. Shapes: N frames, H, W pixels.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelvla_core.errors import DataError
from pixelvla_core.files import write_text

_TODO, _DONE, _CORRUPT = 0, 1, 2

ReadEpisode = Callable[[int], Iterator[np.ndarray]]
"""Yields the frames of one episode in order, uint8[H, W, 3] each."""


@dataclass(frozen=True, kw_only=True)
class FrameStore:
    """Decoded frames of a dataset.

    Attributes:
        frames_NHW3: uint8[N, H, W, 3], memory-mapped and read-only.
        corrupt: Episodes that could not be read; their frames are zeros.
    """

    frames_NHW3: np.ndarray
    corrupt: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path) -> FrameStore | None:
        """Open a finished store, or return None."""
        if not (folder / "store.json").exists():
            return None
        meta = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        if (folder / "frames.bin").stat().st_size != np.prod(meta["shape"], dtype=np.int64):
            raise DataError(f"{folder} holds damaged frames. Remove it; it will be made again.")
        frames = np.memmap(folder / "frames.bin", np.uint8, "r", shape=tuple(meta["shape"]))
        return cls(frames_NHW3=frames, corrupt=tuple(meta["corrupt"]))


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
        folder: the store's own folder; its name tells the dataset, camera and size.
        lengths: number of frames of each episode, in the dataset's order.
        size: (H, W) of all frames.
        read: decodes one episode; raises DataError if it cannot.
        workers: threads.
        skip_corrupt: go on past episodes that cannot be read.

    Raises:
        DataError: an episode cannot be read.
    """
    with _lock(folder.with_name(folder.name + ".lock")):
        found = FrameStore.open(folder)
        if found is None or (found.corrupt and not skip_corrupt):
            _Build(folder, lengths, size, read).run(workers, skip_corrupt)
            found = FrameStore.open(folder)
    assert found is not None
    return found


class _Build:
    def __init__(self, folder: Path, lengths: Sequence[int], size: tuple[int, int], read: ReadEpisode) -> None:
        self.folder, self.partial = folder, folder.with_name(folder.name + ".partial")
        self.shape = (sum(lengths), *size, 3)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.read = read

    def run(self, workers: int, skip_corrupt: bool) -> None:
        if self.folder.exists():
            self.folder.rename(self.partial)
            (self.partial / "store.json").unlink()
        self.partial.mkdir(parents=True, exist_ok=True)
        done = self._open("done.bin", (len(self.offsets) - 1,))
        frames = self._open("frames.bin", self.shape)
        try:
            self._decode(frames, done, workers, skip_corrupt)
            state = np.frombuffer(os.pread(done, len(self.offsets), 0), np.uint8)
        finally:
            os.close(done)
            os.close(frames)
        corrupt = np.flatnonzero(state == _CORRUPT).tolist()
        write_text(self.partial / "store.json", json.dumps({"shape": self.shape, "corrupt": corrupt}))
        self.partial.rename(self.folder)

    def _open(self, name: str, shape: tuple[int, ...]) -> int:
        """Open a file for random writing. Its space is reserved, because a full disk would kill a memory map."""
        descriptor = os.open(self.partial / name, os.O_RDWR | os.O_CREAT, 0o644)
        size = int(np.prod(shape, dtype=np.int64))
        if size:
            os.posix_fallocate(descriptor, 0, size)
        return descriptor

    def _decode(self, frames: int, done: int, workers: int, skip_corrupt: bool) -> None:
        state = np.frombuffer(os.pread(done, len(self.offsets), 0), np.uint8)
        todo = np.flatnonzero(state == _TODO if skip_corrupt else state != _DONE).tolist()
        pool = ThreadPoolExecutor(workers)
        try:
            for result in [pool.submit(self._episode, frames, done, episode, skip_corrupt) for episode in todo]:
                result.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _episode(self, frames: int, done: int, episode: int, skip_corrupt: bool) -> None:
        mark = _DONE
        try:
            self._copy(frames, episode)
        except DataError:
            if not skip_corrupt:
                raise
            mark = _CORRUPT
        os.fdatasync(frames)
        os.pwrite(done, bytes([mark]), episode)

    def _copy(self, frames: int, episode: int) -> None:
        start, stop = self.offsets[episode], self.offsets[episode + 1]
        size = int(np.prod(self.shape[1:]))
        count = 0
        for count, frame in enumerate(self.read(episode), 1):
            if frame.shape != self.shape[1:] or count > stop - start:
                raise DataError(
                    f"Frame {count - 1} of episode {episode} has shape {frame.shape}; expected {stop - start} frames "
                    f"of {self.shape[1:]}. Record the episode again, or leave it out."
                )
            os.pwrite(frames, frame.tobytes(), int(start + count - 1) * size)
        if count != stop - start:
            raise DataError(f"Episode {episode} has {count} images for {stop - start} rows. Leave it out.")


@contextmanager
def _lock(path: Path) -> Iterator[Any]:
    """Hold a lock between processes, so that only one builds; the others wait and then find the store."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
