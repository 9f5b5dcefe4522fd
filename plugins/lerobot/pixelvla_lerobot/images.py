"""Images of one episode of a LeRobotDataset, decoded in order from its video or from its rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pixelvla_core.errors import DataError
from pixelvla_lerobot.source import Source
from pixelvla_lerobot.video import Videos

_CHUNK = 64


class EpisodeImages:
    """Reads the episodes of one camera.

    Args:
        source: the dataset.
        key: feature of the camera.
        size: (H, W) to resize to (PIL's bicubic filter, as OpenVLA's image processor does).
    """

    def __init__(self, source: Source, key: str, size: tuple[int, int]) -> None:
        self.source, self.key, self.size = source, key, size
        is_video = source.info["features"][key]["dtype"] == "video"
        self._videos = Videos(source.root, source.info, key) if is_video else None

    def __call__(self, episode: int) -> Iterator[np.ndarray]:
        """Yield uint8[H, W, 3] frame by frame.

        Raises:
            DataError: the video or an image cannot be decoded; names the episode and the file.
        """
        rows = range(*self.source.columns.starts_E[episode : episode + 2])
        for first in range(0, len(rows), _CHUNK):
            yield from self.rows(episode, rows[first : first + _CHUNK])

    def rows(self, episode: int, rows: Sequence[int]) -> list[np.ndarray]:
        """Return some rows of one episode, uint8[H, W, 3] each; errors as above."""
        try:
            frames = self._from_video(self._videos, episode, rows) if self._videos else map(self._from_row, rows)
            return [self._resize(frame) for frame in frames]
        except MemoryError:
            raise
        except Exception as error:  # FFmpeg, PIL, pyarrow and LeRobot raise many kinds
            details = str(error).strip().splitlines()
            raise DataError(
                f"The images of episode {episode} cannot be read: {self._file(episode)} is damaged or missing "
                f"({type(error).__name__}{': ' + details[0] if details else ''}). Copy the file again, or set "
                "skip_corrupt=true to train without its episodes."
            ) from error

    def _file(self, episode: int) -> Path:
        if self._videos:
            return self._videos.path(episode)
        return self.source.root / self.source.dataset.meta.get_data_file_path(episode)

    def _from_video(self, videos: Videos, episode: int, rows: Sequence[int]) -> list[np.ndarray]:
        return videos.frames(episode, self.source.columns.timestamp_N[list(rows)].tolist())

    def _from_row(self, row: int) -> np.ndarray:
        content = self.source.dataset.hf_dataset.data.table[self.key][row].as_py()
        stored = io.BytesIO(content["bytes"]) if content["bytes"] else self.source.root / content["path"]
        return np.asarray(Image.open(stored).convert("RGB"))

    def _resize(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape[:2] == self.size:
            return np.ascontiguousarray(frame)
        height, width = self.size
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class DirectFrames:
    """Frames decoded when they are asked for; the same face as a FrameStore."""

    images: EpisodeImages
    corrupt: tuple[int, ...] = ()

    def frame(self, row: int) -> np.ndarray:
        """Return one frame, uint8[H, W, 3].

        Raises:
            DataError: it cannot be decoded; names the episode and the file.
        """
        return self.images.rows(int(self.images.source.columns.episode_N[row]), [row])[0]
