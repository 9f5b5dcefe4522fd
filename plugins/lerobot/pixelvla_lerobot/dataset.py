"""The ``lerobot`` dataset: samples of a LeRobotDataset v3 with prompts and masks from its annotation sidecar.

Shapes: N frames in use, H horizon, A action dimensions, M masks.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from pixelvla_core.annotations.reader import Sidecar, cache_dir
from pixelvla_core.annotations.schema import OK
from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.contract.infer import infer_contract
from pixelvla_core.data.prompting import PromptMix, derive_prompts
from pixelvla_core.errors import DataError
from pixelvla_core.prompts import Prompt
from pixelvla_core.seam.batch import Sample
from pixelvla_lerobot import source
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.frames import FrameStore, build
from pixelvla_lerobot.images import EpisodeImages


class LeRobotSamples:
    """Random access to training samples; see ``pixelvla_core.data.dataset.Dataset``.

    Raises:
        DataError: the dataset or its annotations are damaged, lack something that the options ask for, or do not
            belong together.
    """

    def __init__(self, config: LeRobotConfig) -> None:
        self.config = config
        self.mix = PromptMix(config.prompts)
        opened = source.open_dataset(Path(config.root) if config.root else None, config.repo_id, config.revision)
        self.root = Path(opened.root)
        self.name = config.repo_id or self.root.name
        self.info = source.read_info(self.root)
        self.fps = float(self.info["fps"])
        self.fingerprint = source.fingerprint(self.root)
        self._camera_key = source.camera_key(self.info, config.camera)
        self.camera = source.short_name(self._camera_key)
        self._columns = source.read_columns(opened)
        self._check_actions()
        self._store = self._frames(opened)
        self._rows = self._used_rows()
        self._ends = self._episode_ends()
        self._sidecar = Sidecar(Path(config.annotations)) if config.annotations else None
        if self._sidecar:
            self._link(self._sidecar)

    def __len__(self) -> int:
        return len(self._rows)

    def frame_key(self, index: int) -> str:
        """Return ``"ep12/frame30"``."""
        row = self._rows[index]
        return f"ep{self._columns.episode_N[row]}/frame{self._columns.frame_N[row]}"

    def contract(self) -> ActionContract:
        """Return the contract with statistics over all episodes; conventions are inferred or taken from the options."""
        return self._contract

    @cached_property
    def _contract(self) -> ActionContract:
        features = self.info["features"]
        return infer_contract(
            self._columns.actions_NA,
            names=self.config.action_names or _names(features[source.ACTION]),
            state=self._columns.state_NS,
            state_names=_names(features[source.STATE]) if source.STATE in features else (),
            gripper_open=self.config.gripper_open,
            gripper_closed=self.config.gripper_closed,
            rotation=self.config.rotation,
            rule=self.config.rule,
            fps=self.fps,
            camera=self.camera,
            orientation=self.config.orientation,
            frame=self.config.frame,
            dataset=self.name,
            revision=self.config.revision or "",
            fingerprint=self.fingerprint,
        )

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        """Return one frame; the arguments are those of ``Dataset.sample``."""
        row = int(self._rows[index])
        steps_H = np.arange(row, row + horizon)
        last = self._ends[row]
        prompts, masks = self._annotations(row, rng)
        return Sample(
            images={self.camera: np.array(self._store.frames_NHW3[row])} if images else {},
            instruction=self._columns.tasks[self._columns.task_N[row]],
            state=None if self._columns.state_NS is None else self._columns.state_NS[row],
            prompts={self.camera: prompts} if prompts else {},
            masks={} if masks is None else {self.camera: masks},
            actions=self._columns.actions_NA[np.minimum(steps_H, last)],
            action_valid=steps_H <= last,
            key=f"{self.name}/{self.frame_key(index)}",
        )

    def _annotations(self, row: int, rng: np.random.Generator) -> tuple[tuple[Prompt, ...], np.ndarray | None]:
        kinds = self.mix.draw(rng)
        if not kinds or self._sidecar is None or self._prompt_row[row] < 0:
            return (), None
        prompts = derive_prompts(self._sidecar.mask(self._prompt_row[row]), kinds, rng)
        with_mask = rng.random() < self.config.mask_probability
        mask_row = self._mask_row[row]
        return prompts, self._sidecar.mask(mask_row)[None] if with_mask and mask_row >= 0 else None

    def _check_actions(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self._columns.actions_NA).all(1))
        if len(bad):
            row = bad[0]
            raise DataError(
                f"{len(bad)} actions of {self.name} are NaN or infinite, the first at episode "
                f"{self._columns.episode_N[row]}, frame {self._columns.frame_N[row]}: "
                f"{self._columns.actions_NA[row].tolist()}. Remove these episodes with `lerobot-edit-dataset`."
            )

    def _frames(self, opened: object) -> FrameStore:
        height, width = self._image_size()
        key = f"{self.fingerprint}/{self._camera_key}/{height}x{width}"
        folder = Path(self.config.cache or cache_dir()) / "frames" / hashlib.sha256(key.encode()).hexdigest()[:24]
        lengths = np.bincount(self._columns.episode_N, minlength=self.info["total_episodes"]).tolist()
        read = EpisodeImages(opened, self._columns, self._camera_key, (height, width))
        return build(
            folder,
            lengths,
            (height, width),
            read,
            workers=self.config.workers,
            skip_corrupt=self.config.skip_corrupt,
        )

    def _image_size(self) -> tuple[int, int]:
        if self.config.image_size:
            return self.config.image_size, self.config.image_size
        height, width, _ = self.info["features"][self._camera_key]["shape"]
        return height, width

    def _used_rows(self) -> np.ndarray:
        episode_N = self._columns.episode_N
        wanted = np.unique(episode_N) if self.config.episodes is None else np.array(self.config.episodes)
        if unknown := sorted(set(wanted.tolist()) - set(episode_N.tolist())):
            raise DataError(f"The dataset {self.name} has no episode {unknown[0]}; it has 0 to {episode_N.max()}.")
        used = np.isin(episode_N, wanted) & ~np.isin(episode_N, self._store.corrupt)
        if not used.any():
            raise DataError(f"No episode of {self.name} is left to train on.")
        return np.flatnonzero(used)

    def _episode_ends(self) -> np.ndarray:
        """int64[all frames]: the last row of each row's episode."""
        ends = np.flatnonzero(np.diff(self._columns.episode_N, append=-1))
        return ends[np.searchsorted(ends, np.arange(len(self._columns.episode_N)))]

    def _link(self, sidecar: Sidecar) -> None:
        """Find the annotation row that each frame's prompts and mask come from."""
        sidecar.check_dataset(self.fingerprint, self.name)
        rows_N = sidecar.rows_of(self._columns.episode_N, self._columns.frame_N)
        usable = np.append(sidecar.statuses() == OK, False)[rows_N]
        self._check_annotated(rows_N, usable)
        first_N = _first_usable(rows_N, usable, self._columns.episode_N)
        held_N = _latest_usable(rows_N, usable, self._columns.episode_N)
        by_frame = {"first": first_N, "current": held_N}
        self._prompt_row, self._mask_row = by_frame[self.config.prompt_frame], by_frame[self.config.mask_frame]

    def _check_annotated(self, rows_N: np.ndarray, usable: np.ndarray) -> None:
        missing = self._rows[rows_N[self._rows] < 0]
        if len(missing) and not self.config.allow_missing:
            episode, frame = self._columns.episode_N[missing[0]], self._columns.frame_N[missing[0]]
            raise DataError(
                f"{len(missing)} of {len(self._rows)} frames of {self.name} have no annotation, the first is episode "
                f"{episode}, frame {frame}. Annotate them, or set allow_missing=true to use them without prompts."
            )


def _names(feature: dict) -> tuple[str, ...]:
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()))
    return tuple(names) if names else tuple(f"action_{index}" for index in range(feature["shape"][0]))


def _first_usable(rows_N: np.ndarray, usable_N: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """The annotation row of the first usable frame of each frame's episode, or -1."""
    first = np.full(episode_N.max() + 1, -1)
    places = np.flatnonzero(usable_N)[::-1]
    first[episode_N[places]] = rows_N[places]
    return first[episode_N]


def _latest_usable(rows_N: np.ndarray, usable_N: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """The annotation row of the latest usable frame up to each frame, within its episode, or -1."""
    place_N = np.maximum.accumulate(np.where(usable_N, np.arange(len(rows_N)), -1))
    same = (place_N >= 0) & (episode_N[place_N] == episode_N)
    return np.where(same, rows_N[place_N], -1)
