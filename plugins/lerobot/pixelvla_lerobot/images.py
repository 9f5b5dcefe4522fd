"""Images of one episode of a LeRobotDataset, decoded in order from its video or from its rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pixelvla_core.errors import DataError
from pixelvla_lerobot.source import Source

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
        self._is_video = source.info["features"][key]["dtype"] == "video"

    def __call__(self, episode: int) -> Iterator[np.ndarray]:
        """Yield uint8[H, W, 3] frame by frame.

        Raises:
            DataError: the video or an image cannot be decoded; names the episode and the file.
        """
        try:
            for frame in self._from_video(episode) if self._is_video else self._from_rows(episode):
                yield self._resize(frame)
        except Exception as error:  # FFmpeg, PIL, pyarrow and LeRobot raise many kinds
            details = str(error).strip().splitlines()
            raise DataError(
                f"The images of episode {episode} cannot be read: {self._file(episode)} is damaged or missing "
                f"({type(error).__name__}{': ' + details[0] if details else ''}). Copy the file again, or set "
                "skip_corrupt=true to train without its episodes."
            ) from error

    def _file(self, episode: int) -> Path:
        meta = self.source.dataset.meta
        path = meta.get_video_file_path(episode, self.key) if self._is_video else meta.get_data_file_path(episode)
        return self.source.root / path

    def _from_video(self, episode: int) -> Iterator[np.ndarray]:
        from lerobot.datasets.video_utils import decode_video_frames

        dataset, columns = self.source.dataset, self.source.columns
        times = columns.timestamp_N[slice(*columns.starts_E[episode : episode + 2])]
        times = times + dataset.meta.episodes[episode][f"videos/{self.key}/from_timestamp"]
        for first in range(0, len(times), _CHUNK):
            chunk = times[first : first + _CHUNK].tolist()
            frames = decode_video_frames(self._file(episode), chunk, dataset.tolerance_s, "pyav", return_uint8=True)
            yield from frames.permute(0, 2, 3, 1).numpy()

    def _from_rows(self, episode: int) -> Iterator[np.ndarray]:
        column = self.source.dataset.hf_dataset.data.table[self.key]
        for row in range(*self.source.columns.starts_E[episode : episode + 2]):
            content = column[row].as_py()
            stored = io.BytesIO(content["bytes"]) if content["bytes"] else self.source.root / content["path"]
            yield np.asarray(Image.open(stored).convert("RGB"))

    def _resize(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape[:2] == self.size:
            return np.ascontiguousarray(frame)
        height, width = self.size
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
