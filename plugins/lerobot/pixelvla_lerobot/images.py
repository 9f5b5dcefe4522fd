"""Images of one episode of a LeRobotDataset, decoded in order from its video or from its rows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pixelvla_core.errors import DataError

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from pixelvla_lerobot.source import Columns

_CHUNK = 64


class EpisodeImages:
    """Reads episodes of one camera.

    Args:
        dataset: the open dataset.
        columns: its columns.
        key: feature of the camera.
        size: (H, W) to resize to (PIL's bicubic filter, as OpenVLA's image processor); None to leave frames alone.
    """

    def __init__(
        self, dataset: LeRobotDataset, columns: Columns, key: str, size: tuple[int, int] | None = None
    ) -> None:
        self.dataset, self.columns, self.key, self.size = dataset, columns, key, size

    def __call__(self, episode: int) -> Iterator[np.ndarray]:
        """Yield uint8[H, W, 3] frame by frame.

        Raises:
            DataError: the video or an image cannot be decoded; names the episode and the file.
        """
        video = self.key in self.dataset.meta.video_keys
        where = (
            self.dataset.meta.get_video_file_path
            if video
            else lambda episode, key: self.dataset.meta.get_data_file_path(episode)
        )
        try:
            for frame in self._video(episode) if video else self._rows(episode):
                yield self._resize(frame)
        except Exception as error:  # FFmpeg, PIL and LeRobot raise many kinds
            raise DataError(
                f"Episode {episode} cannot be read: {self.dataset.root / where(episode, self.key)} is damaged "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}). Copy the file "
                "again, or set skip_corrupt=true to train without the episode."
            ) from error

    def _video(self, episode: int) -> Iterator[np.ndarray]:
        from lerobot.datasets.video_utils import decode_video_frames

        meta = self.dataset.meta
        path = self.dataset.root / meta.get_video_file_path(episode, self.key)
        start = meta.episodes[episode][f"videos/{self.key}/from_timestamp"]
        times = self.columns.timestamp_N[self.columns.episode_N == episode] + start
        for first in range(0, len(times), _CHUNK):
            chunk = times[first : first + _CHUNK].tolist()
            frames = decode_video_frames(path, chunk, self.dataset.tolerance_s, "pyav", return_uint8=True)
            yield from frames.permute(0, 2, 3, 1).numpy()

    def _rows(self, episode: int) -> Iterator[np.ndarray]:
        column = self.dataset.hf_dataset.data.table[self.key]
        for row in np.flatnonzero(self.columns.episode_N == episode):
            content = column[int(row)].as_py()
            source = io.BytesIO(content["bytes"]) if content["bytes"] else self.dataset.root / content["path"]
            yield np.asarray(Image.open(source).convert("RGB"))

    def _resize(self, frame: np.ndarray) -> np.ndarray:
        if self.size is None or frame.shape[:2] == self.size:
            return np.ascontiguousarray(frame)
        height, width = self.size
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
