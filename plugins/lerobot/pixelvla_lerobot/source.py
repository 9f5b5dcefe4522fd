"""The columns of a LeRobotDataset as NumPy arrays, and where each episode's images are.

LeRobot's dataset package takes seconds to import, so it is imported inside the functions that need it.
Shapes: N frames of all episodes, A action dimensions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.errors import DataError, suggest

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

IMAGES = "observation.images."
ACTION = "action"
STATE = "observation.state"
_HEAD = 1 << 20
_WHOLE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What samples need besides images, one entry per frame of the dataset, in its order."""

    episode_N: np.ndarray
    frame_N: np.ndarray
    timestamp_N: np.ndarray
    task_N: np.ndarray
    tasks: tuple[str, ...]
    actions_NA: np.ndarray
    state_NS: np.ndarray | None


def read_info(root: Path) -> dict[str, Any]:
    """Read ``meta/info.json`` of a LeRobotDataset v3.

    Raises:
        DataError: there is none, it is damaged, or it is of an older format.
    """
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{root} is no LeRobotDataset: it has no meta/info.json. Give the folder that holds meta, data and videos."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Copy the dataset again.") from error
    version = str(info.get("codebase_version", "unknown"))
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
                _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        if path.stat().st_size <= _WHOLE:
            digest.update(file.read())
            return
        digest.update(file.read(_HEAD))
        file.seek(-_HEAD, 2)
        digest.update(file.read())


def camera_key(info: dict[str, Any], camera: str) -> str:
    """Return the feature that holds a camera's images.

    Raises:
        DataError: there is no such camera; names those that are there.
    """
    keys = [key for key, feature in info["features"].items() if feature["dtype"] in ("video", "image")]
    for key in (camera, IMAGES + camera, "observation." + camera):
        if key in keys:
            return key
    names = [short_name(key) for key in keys]
    raise DataError(
        f"The dataset has no camera {camera!r}.{suggest(camera, names)} It has {', '.join(names) or 'none'}. "
        "Set `camera` to one of these."
    )


def short_name(key: str) -> str:
    """The camera's name without LeRobot's prefix."""
    return key.removeprefix(IMAGES).removeprefix("observation.")


def open_dataset(root: Path | None, repo_id: str | None, revision: str | None) -> LeRobotDataset:
    """Open the real LeRobotDataset, from a folder or from the Hub.

    Raises:
        DataError: LeRobot cannot read it.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    if root is not None:
        _check_files(root)
    try:
        return LeRobotDataset(repo_id or f"local/{root.name}", root=root, revision=revision, video_backend="pyav")
    except Exception as error:  # LeRobot, pyarrow, datasets and the Hub raise many kinds
        raise DataError(
            f"LeRobot cannot open the dataset {root or repo_id}: {type(error).__name__}: {error}. "
            "Copy it again, or check it with `lerobot-dataset-viz`."
        ) from error


def _check_files(root: Path) -> None:
    """Refuse a folder without rows before LeRobot tries to download them."""
    read_info(root)
    if not list((root / "data").rglob("*.parquet")):
        raise DataError(f"The dataset in {root} has no rows under data/. Copy the whole dataset.")


def read_columns(dataset: LeRobotDataset) -> Columns:
    """Read everything but images into NumPy, once.

    Raises:
        DataError: there are no actions.
    """
    if ACTION not in dataset.meta.features:
        known = ", ".join(dataset.meta.features)
        raise DataError(f"The dataset has no {ACTION!r} column; it has {known}. pixelvla learns from actions.")
    table = dataset.hf_dataset.data.table
    tasks = dataset.meta.tasks.sort_values("task_index")
    return Columns(
        episode_N=table["episode_index"].to_numpy().astype(np.int64),
        frame_N=table["frame_index"].to_numpy().astype(np.int64),
        timestamp_N=table["timestamp"].to_numpy().astype(np.float64),
        task_N=np.searchsorted(tasks["task_index"].to_numpy(), table["task_index"].to_numpy()),
        tasks=tuple(str(task) for task in tasks.index),
        actions_NA=_matrix(table[ACTION]),
        state_NS=_matrix(table[STATE]) if STATE in table.column_names else None,
    )


def _matrix(column: Any) -> np.ndarray:
    values = column.combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(values), -1)
