"""A LeRobotDataset as the annotation pipeline reads it: any frame of any episode, at its own size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from pixelvla_core.errors import DataError
from pixelvla_lerobot.config import LeRobotConfig, RecordingConfig
from pixelvla_lerobot.images import EpisodeImages
from pixelvla_lerobot.source import ACTION, STATE, Source, feature_names, short_name


class LeRobotRecording:
    """The episodes of one camera.

    Args:
        config: options.
        dataset: the dataset's folder, or its id on the Hub.
        camera: name of the camera, with or without LeRobot's prefix; None for the only one.

    Raises:
        DataError: there is no such dataset or camera, or it cannot be read.
    """

    def __init__(self, config: RecordingConfig | None, dataset: str, camera: str | None) -> None:
        config = config or RecordingConfig()
        local = Path(dataset).is_dir()
        if not local and (Path(dataset).is_absolute() or dataset.count("/") != 1):
            raise DataError(
                f"{dataset} is neither a folder nor an id on the Hub. Give the folder of a LeRobotDataset v3 (it holds "
                "meta, data and videos), or an id such as lerobot/libero."
            )
        root, repo_id = (dataset, None) if local else (None, dataset)
        found = LeRobotConfig(root=root, repo_id=repo_id, revision=config.revision, cache=config.cache)
        self._source = Source.of(found)
        key = self._source.camera_key(camera)
        self.name, self.revision = self._source.name, self._source.revision
        self.fingerprint = self._source.fingerprint
        self.camera = short_name(key)
        features = self._source.info["features"]
        height, width = features[key]["shape"][:2]
        self._images = EpisodeImages(self._source, key, (height, width))
        self.action_names = feature_names(features[ACTION])
        self.state_names = feature_names(features[STATE], "state") if STATE in features else ()

    @cached_property
    def lengths(self) -> list[int]:
        return self._source.columns.lengths

    def instruction(self, episode: int) -> str:
        columns = self._source.columns
        return str(columns.tasks[columns.task_N[columns.starts_E[episode]]])

    def actions(self, episode: int) -> np.ndarray:
        return self._source.columns.actions_NA[self._rows(episode)]

    def states(self, episode: int) -> np.ndarray | None:
        return self._source.columns.state_NS[self._rows(episode)] if self.state_names else None

    def frames(self, episode: int, frames: Sequence[int]) -> list[np.ndarray]:
        first = int(self._source.columns.starts_E[episode])
        return self._images.rows(episode, [first + frame for frame in frames])

    def _rows(self, episode: int) -> slice:
        return slice(*self._source.columns.starts_E[episode : episode + 2])
