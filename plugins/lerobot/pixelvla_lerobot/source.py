"""A LeRobotDataset on disk: its facts, its fingerprint, its columns and the action contract they amount to.

LeRobot's dataset package takes seconds to import, so it is opened only for what the cache does not have.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.annotations.reader import cache_dir
from pixelvla_core.contract import ActionContract, infer_contract
from pixelvla_core.errors import DataError, suggest
from pixelvla_lerobot.columns import ACTION, STATE, Columns, cached

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from pixelvla_lerobot.config import LeRobotConfig

IMAGES = "observation.images."
_EDGE = 1 << 20
_WHOLE = 16 << 20
_OPENING = threading.Lock()


@dataclass(frozen=True)
class Source:
    """One dataset.

    Attributes:
        root: Its folder. name: Its id, for messages and contracts. revision: On the Hub, or "".
        cache: Folder for what can be made again.
    """

    root: Path
    name: str
    revision: str = ""
    cache: Path | None = None

    @classmethod
    def of(cls, config: LeRobotConfig) -> Source:
        """Find the dataset that the options name, downloading it if it has no folder here."""
        cache = Path(config.cache) if config.cache else None
        root = Path(config.root or open_dataset(None, config.repo_id, config.revision).root)
        return cls(root, config.repo_id or root.name, config.revision or "", cache)

    @cached_property
    def info(self) -> dict[str, Any]:
        """The content of ``meta/info.json``."""
        return read_info(self.root)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the dataset's files."""
        return fingerprint(self.root)

    @cached_property
    def columns(self) -> Columns:
        """Everything but images."""
        return cached(self.folder / "columns.npz", lambda: self.dataset)

    @property
    def dataset(self) -> LeRobotDataset:
        """The real LeRobotDataset, opened when one of several threads first needs it."""
        with _OPENING:
            return self._dataset

    @cached_property
    def _dataset(self) -> LeRobotDataset:
        return open_dataset(self.root, self.name, None)

    @property
    def folder(self) -> Path:
        """This dataset's folder in the cache."""
        return (self.cache or cache_dir()) / "datasets" / self.fingerprint[:24]

    def camera_key(self, camera: str | None) -> str:
        """Return the feature that holds a camera's images, those of the only camera where none is named.

        Raises:
            DataError: there is no such camera, or none is named of several; names those that are there.
        """
        keys = [key for key, feature in self.info["features"].items() if feature["dtype"] in ("video", "image")]
        names = [short_name(key) for key in keys]
        if camera is None and len(keys) != 1:
            raise DataError(
                f"The dataset {self.name} has {len(keys)} cameras ({', '.join(names) or 'none'}). Say which one with "
                "`camera`."
            )
        for key in keys if camera is None else (camera, IMAGES + camera, "observation." + camera):
            if key in keys:
                return key
        raise DataError(
            f"The dataset {self.name} has no camera {camera!r}.{suggest(str(camera), names)} It has "
            f"{', '.join(names) or 'none'}. Set `camera` to one of these."
        )

    def check_actions(self) -> None:
        """Refuse actions from which nothing can be computed.

        Raises:
            DataError: some are NaN or infinite; names the first and all the episodes.
        """
        columns = self.columns
        bad = np.flatnonzero(~np.isfinite(columns.actions_NA).all(1))
        if len(bad):
            episodes = np.unique(columns.episode_N[bad]).tolist()
            more = f" and {len(episodes) - 20} more" if len(episodes) > 20 else ""
            raise DataError(
                f"{len(bad)} actions of {self.name} are NaN or infinite, the first at {columns.place(bad[0])}: "
                f"{columns.actions_NA[bad[0]].tolist()}. Remove these episodes with `lerobot-edit-dataset`: "
                f"{', '.join(map(str, episodes[:20]))}{more}."
            )

    def contract(self, config: LeRobotConfig, camera: str) -> ActionContract:
        """Infer the action contract from names and data, with what the options declare.

        Raises:
            ContractError: something is neither declared nor told by the data.
        """
        features, columns = self.info["features"], self.columns
        return infer_contract(
            columns.actions_NA,
            names=config.action_names or feature_names(features[ACTION]),
            state=columns.state_NS,
            state_names=feature_names(features[STATE]) if STATE in features else (),
            gripper_open=config.gripper_open,
            gripper_closed=config.gripper_closed,
            rotation=config.rotation,
            rule=config.rule,
            fps=float(self.info["fps"]),
            camera=camera,
            orientation=config.orientation,
            frame=config.frame,
            dataset=self.name,
            revision=self.revision,
            fingerprint=self.fingerprint,
        )


def read_info(root: Path) -> dict[str, Any]:
    """Read ``meta/info.json`` of a LeRobotDataset v3.

    Raises:
        DataError: there is none, it is damaged, or it is of an older format.
    """
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
    except FileNotFoundError:
        raise DataError(
            f"{root} is no LeRobotDataset: it has no meta/info.json. Give the folder that holds meta, data and videos."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}. Copy the dataset again.") from error
    if not version.startswith("v3"):
        raise DataError(
            f"The dataset in {root} has format {version}; expected v3. Convert it with "
            "`python -m lerobot.scripts.convert_dataset_v21_to_v30`."
        )
    return info


def fingerprint(root: Path) -> str:
    """Hash a dataset's files: the same bytes give the same hash wherever they are.

    Files of up to 16 MiB count whole; of larger ones the size and the first and last MiB, so that it stays fast.
    """
    digest = hashlib.sha256()
    for folder in ("meta", "data", "videos"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                digest.update(f"{path.relative_to(root).as_posix()}\n{path.stat().st_size}\n".encode())
                digest.update(_sampled(path))
    return digest.hexdigest()


def _sampled(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= _WHOLE:
            return file.read()
        head = file.read(_EDGE)
        file.seek(-_EDGE, 2)
        return head + file.read()


def short_name(key: str) -> str:
    """The camera's name without LeRobot's prefix."""
    return key.removeprefix(IMAGES).removeprefix("observation.")


def open_dataset(root: Path | None, repo_id: str | None, revision: str | None) -> LeRobotDataset:
    """Open the real LeRobotDataset, from a folder or from the Hub.

    Raises:
        DataError: files are missing, or LeRobot cannot read them.
    """
    if root is not None:
        _check_files(root)
        repo_id = repo_id or f"local/{root.name}"
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        return LeRobotDataset(repo_id, root=root, revision=revision, video_backend="pyav")
    except ImportError as error:
        raise DataError(f"LeRobot's datasets cannot be used: {error}. Install `lerobot[dataset]`.") from error
    except Exception as error:  # LeRobot, pyarrow, datasets and the Hub raise many kinds
        if root is not None:
            error = _first_cause(error)
            _check_outside(error, root)
        raise DataError(
            f"LeRobot cannot open the dataset {root or repo_id}: {type(error).__name__}: {_first_line(error)} "
            "Copy it again; if it is complete, look at it with `lerobot-dataset-viz`."
        ) from error


def _first_cause(error: Exception) -> Exception:
    """What LeRobot met in the folder, before it turned to the Hub for the same."""
    while isinstance(error.__context__, Exception):
        error = error.__context__
    return error


def _check_outside(error: Exception, root: Path) -> None:
    """Say so where not the dataset is the trouble, but the folder in which Hugging Face's library keeps its copies."""
    if not isinstance(error, OSError) or not error.filename:
        return
    name = error.filename
    if root.resolve() not in Path(name).resolve().parents:
        raise DataError(
            f"LeRobot copies the tables of a dataset to a cache and cannot use {name} for it: {error.strerror}. Set "
            "HF_HOME to a folder that can be written."
        ) from error


def _check_files(root: Path) -> None:
    """Refuse a folder that lacks files before LeRobot tries to download them."""
    info = read_info(root)
    for folder, wanted in (("meta/episodes", True), ("data", True), ("videos", bool(info.get("video_path")))):
        if wanted and not any(path.is_file() for path in (root / folder).rglob("*")):
            raise DataError(f"The dataset in {root} has no files under {folder}/. Copy the whole dataset.")


def _first_line(error: Exception) -> str:
    return f"{str(error).strip().splitlines()[0].rstrip('.')}." if str(error).strip() else ""


def feature_names(feature: dict[str, Any], unnamed: str = "action") -> tuple[str, ...]:
    """Names of a feature's dimensions, action_0 and so on where there are none.

    LeRobot stores a list, a mapping of groups to lists, or nothing.
    """
    names = feature.get("names")
    if isinstance(names, dict):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    if not names or len(names) != feature["shape"][0]:
        return tuple(f"{unnamed}_{index}" for index in range(feature["shape"][0]))
    return tuple(map(str, names))
