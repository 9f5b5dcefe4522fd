"""Frames of a camera's video files: each file is opened once, and only the frames that are asked for are converted.

LeRobot puts many episodes into one file. Its own reader opens the file for every call and converts every frame from the
keyframe on; this one gives the same pixels.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from pixelvla_core.errors import DataError

if TYPE_CHECKING:
    import av

_TOLERANCE = 1e-4
"""Seconds by which a frame may miss its time, as LeRobot has it."""
_OPEN = 4
"""Files that stay open while others are read; each holds a decoder."""


class Videos:
    """Where each episode of a camera lies in which file.

    Args:
        root: folder of the dataset. info: content of its ``meta/info.json``. key: feature of the camera.

    Raises:
        DataError: the dataset does not say where its videos are.
    """

    def __init__(self, root: Path, info: dict[str, Any], key: str) -> None:
        wanted = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        try:
            table = pq.read_table(root / "meta" / "episodes", columns=["episode_index", *wanted])
        except Exception as error:  # pyarrow raises many kinds
            raise DataError(f"{root}/meta/episodes does not say where videos are: {error}. Copy it again.") from error
        order = np.argsort(table["episode_index"].to_numpy())
        self._chunks, self._files, self._starts = (table[name].to_numpy()[order] for name in wanted)
        self._root, self._template, self._key = root, info["video_path"], key
        self._idle: list[tuple[int, Path, Video]] = []
        self._lock = threading.Lock()

    def path(self, episode: int) -> Path:
        """The file that holds an episode."""
        numbers = {"chunk_index": int(self._chunks[episode]), "file_index": int(self._files[episode])}
        return self._root / self._template.format(video_key=self._key, **numbers)

    def frames(self, episode: int, times: Sequence[float]) -> list[np.ndarray]:
        """Return the frames at some seconds of an episode, uint8[H, W, 3] each; threads may call it at once.

        Raises:
            OSError, ValueError: the file is missing or damaged there, or has no such frames.
        """
        path, start = self.path(episode), float(self._starts[episode])
        video = self._take(path)
        try:
            found = video.frames([start + time for time in times])
        except BaseException:
            video.close()
            raise
        self._give(path, video)
        return found

    def _take(self, path: Path) -> Video:
        # A file that was opened before a fork shares its place with the other process: leave it alone.
        process = os.getpid()
        with self._lock:
            for place, (owner, held, _) in enumerate(self._idle):
                if owner == process and held == path:
                    return self._idle.pop(place)[2]
        return Video(path)

    def _give(self, path: Path, video: Video) -> None:
        with self._lock:
            self._idle.append((os.getpid(), path, video))
            old = self._idle.pop(0) if len(self._idle) > _OPEN else None
        if old is not None and old[0] == os.getpid():
            old[2].close()


class Video:
    """One open file.

    It goes on decoding where it stopped, unless a keyframe is nearer to what is wanted.
    """

    def __init__(self, path: Path) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._tick = float(self._stream.time_base or 0) or 1e-6
        # Small pictures gain nothing from more threads; tasks that run side by side use the cores.
        self._stream.codec_context.thread_count = 1
        # Otherwise decoders make something up for what is damaged.
        self._stream.codec_context.options = {"err_detect": "explode"}
        self._convert = VideoReformatter().reformat
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._at = self._apart = 0.0

    def close(self) -> None:
        self._container.close()

    def frames(self, times: Sequence[float]) -> list[np.ndarray]:
        """Return the frames at these seconds of the file."""
        found = {time: self._frame(time) for time in sorted(set(times))}
        return [found[time] for time in times]

    def _frame(self, time: float) -> np.ndarray:
        if not _TOLERANCE < time - self._at <= self._apart + _TOLERANCE:
            self._seek(time)
        for frame in self._decoded:
            sought, self._at = self._at, self._seconds(frame)
            if sought < 0:
                self._apart = max(self._apart, time - self._at)
            if self._at > time + _TOLERANCE:
                break
            if self._at >= time - _TOLERANCE:
                return self._converted(frame)
        raise ValueError(f"it has no frame at {time:.3f} s")

    def _seek(self, time: float) -> None:
        """Go to the last keyframe before a time."""
        self._container.seek(round((time + _TOLERANCE / 2) / self._tick), stream=self._stream)
        self._decoded, self._at = self._container.decode(self._stream), -1.0

    def _seconds(self, frame: av.VideoFrame) -> float:
        if frame.pts is None or frame.is_corrupt:
            raise ValueError(f"the frame after {self._at:.3f} s is damaged")
        return frame.pts * self._tick

    def _converted(self, frame: av.VideoFrame) -> np.ndarray:
        return self._convert(frame, format="rgb24").to_ndarray()
