"""The ``lerobot`` dataset: samples of a LeRobotDataset v3 with prompts and masks from its annotation sidecar.

Shapes: N frames of all episodes, H horizon, A action dimensions, M masks.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from pathlib import Path

import numpy as np

from pixelvla_core.annotations.episodes import discarded
from pixelvla_core.annotations.schema import MANIFEST
from pixelvla_core.api import Prompt, Sample
from pixelvla_core.contract import ActionContract, lint
from pixelvla_core.errors import DataError
from pixelvla_core.files import sha256
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.frames import FrameStore, build
from pixelvla_lerobot.images import DirectFrames, EpisodeImages
from pixelvla_lerobot.prompting import Prompting, mix_of
from pixelvla_lerobot.source import Source, short_name

log = logging.getLogger("pixelvla")


class LeRobotSamples:
    """Random access to training samples; see ``pixelvla_core.data.dataset.Dataset``.

    The first use of a dataset decodes all of its frames into the cache; later ones open it in a fraction of a second
    and without importing LeRobot.

    Raises:
        DataError: the dataset or its annotations are damaged, lack something that the options ask for, or do not
            belong together.
        ContractError: the action's conventions are neither declared nor told by the data.
    """

    def __init__(self, config: LeRobotConfig) -> None:
        self.config = config
        mix_of(config)
        self.source = Source.of(config)
        self.fps = float(self.source.info["fps"])
        self._camera_key = self.source.camera_key(config.camera)
        self.camera = short_name(self._camera_key)
        self._columns = self.source.columns
        self.source.check_actions()
        self._contract = self._linted_contract()
        self._prompting = self._prompted(config.annotations) if config.annotations else None
        self.fingerprint = self._fingerprint()  # now that the sidecar is known to be there
        self._images = self._frames()
        self._rows = self._used_rows()
        if self._prompting:
            self._prompting.check(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def frame_key(self, index: int) -> str:
        """Return ``"ep12/frame30"``."""
        row = self._rows[index]
        return f"ep{self._columns.episode_N[row]}/frame{self._columns.frame_N[row]}"

    def contract(self) -> ActionContract:
        """Return the contract: statistics over all episodes, conventions declared or inferred."""
        return self._contract

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        """Return one frame; the arguments are those of ``Dataset.sample``."""
        row, columns = int(self._rows[index]), self._columns
        steps_H = np.arange(row, row + horizon)
        last = columns.starts_E[columns.episode_N[row] + 1] - 1
        instruction = str(columns.tasks[columns.task_N[row]])
        prompts: tuple[Prompt, ...] = ()
        masks: np.ndarray | None = None
        if self._prompting:
            prompts, masks = self._prompting.draw(row, rng)
        if self._prompting and prompts:
            instruction = self._prompting.word(instruction, row, rng)
        return Sample(
            images={self.camera: self._images.frame(row)} if images else {},
            instruction=instruction,
            state=columns.state_NS[row] if columns.state_NS.size else None,
            prompts={self.camera: prompts} if prompts else {},
            masks={} if masks is None else {self.camera: masks},
            actions=columns.actions_NA[np.minimum(steps_H, last)],
            action_valid=steps_H <= last,
            key=f"{self.source.name}/{self.frame_key(index)}",
        )

    def _prompted(self, folder: str) -> Prompting:
        return Prompting(Path(folder), self.config, self.source, self.camera)

    def _fingerprint(self) -> str:
        """Hash of what samples are made from: the dataset and, where there is one, the sidecar."""
        data = self.source.fingerprint
        if not self.config.annotations:
            return data
        manifest = sha256(Path(self.config.annotations) / MANIFEST)
        return hashlib.sha256(f"{data} {manifest}".encode()).hexdigest()

    def _linted_contract(self) -> ActionContract:
        contract, columns = self.source.contract(self.config, self.camera), self._columns
        for finding in lint(
            columns.actions_NA,
            contract,
            episode_N=columns.episode_N,
            timestamp_N=columns.timestamp_N,
            state_NS=columns.state_NS,
        ):
            log.warning("%s: %s", self.source.name, finding)
        return contract

    def _frames(self) -> FrameStore | DirectFrames:
        height, width = self._image_size()
        images = EpisodeImages(self.source, self._camera_key, (height, width))
        if self.config.frames == "direct":
            return DirectFrames(images)
        return build(
            self.source.folder / f"{self._camera_key}-{height}x{width}",
            self._columns.lengths,
            (height, width),
            images,
            workers=self.config.workers,
            skip_corrupt=self.config.skip_corrupt,
        )

    def _image_size(self) -> tuple[int, int]:
        if self.config.image_size:
            return self.config.image_size, self.config.image_size
        feature = self.source.info["features"][self._camera_key]
        size = dict(zip(feature["names"] or ("height", "width", "channels"), feature["shape"], strict=True))
        return size["height"], size["width"]

    def _used_rows(self) -> np.ndarray:
        episode_N = self._columns.episode_N
        wanted = self.config.episodes if self.config.episodes is not None else np.unique(episode_N).tolist()
        if unknown := sorted(set(wanted) - set(episode_N.tolist())):
            raise DataError(
                f"The dataset {self.source.name} has no episode {unknown[0]}; it has 0 to {episode_N.max()}. "
                "Correct `episodes`."
            )
        left = sorted(set(wanted) - set(self._images.corrupt))
        if skipped := len(set(wanted)) - len(left):
            log.warning("%s: %d episodes cannot be read and are left out", self.source.name, skipped)
        left = self._kept(left)
        if not left:
            raise DataError(f"No episode of {self.source.name} is left to train on. Choose other `episodes`.")
        return np.flatnonzero(np.isin(episode_N, left))

    def _kept(self, episodes: list[int]) -> list[int]:
        """Without those that the annotation discarded, unless they are to be used as text."""
        if not self.config.annotations or self.config.discarded == "text":
            return episodes
        reasons = discarded(Path(self.config.annotations))
        left = [episode for episode in episodes if episode not in reasons]
        if gone := Counter(reasons[episode].split(":")[0] for episode in episodes if episode in reasons):
            listed = ", ".join(f"{reason} {count}" for reason, count in gone.most_common())
            log.info(
                "%s: %d episodes that the annotation discarded are left out (%s)",
                self.source.name,
                len(episodes) - len(left),
                listed,
            )
        return left
