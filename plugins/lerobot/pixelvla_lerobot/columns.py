"""Everything of a LeRobotDataset but its images, as NumPy arrays, read once and kept in the cache.

Shapes: N frames of all episodes, A action dimensions, S state dimensions.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

ACTION = "action"
STATE = "observation.state"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One entry per frame, episode after episode, in the dataset's order.

    Attributes:
        episode_N: int64. frame_N: int64, from 0 in each episode. timestamp_N: float64, seconds from its start.
        task_N: int64, index into ``tasks``.
        tasks: The instructions.
        actions_NA: float32, in the dataset's units.
        state_NS: float32; S is 0 if the dataset has no state.
    """

    episode_N: np.ndarray
    frame_N: np.ndarray
    timestamp_N: np.ndarray
    task_N: np.ndarray
    tasks: np.ndarray
    actions_NA: np.ndarray
    state_NS: np.ndarray

    @cached_property
    def starts_E(self) -> np.ndarray:
        """int64[episodes + 1]: the first row of each episode, and the number of rows at the end."""
        return np.searchsorted(self.episode_N, np.arange(self.episode_N[-1] + 2))

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each episode."""
        return np.diff(self.starts_E).tolist()

    def place(self, row: int) -> str:
        """Name a row for messages."""
        return f"episode {self.episode_N[row]}, frame {self.frame_N[row]}"


def cached(path: Path, dataset: Callable[[], LeRobotDataset]) -> Columns:
    """Return the columns kept in ``path``, or read them from the dataset and keep them there."""
    damage = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with suppress(*damage), np.load(path, allow_pickle=False) as stored:
        return Columns(**{item.name: stored[item.name] for item in fields(Columns)})
    columns = read(dataset())
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **{item.name: getattr(columns, item.name) for item in fields(Columns)})
    return columns


def read(dataset: LeRobotDataset) -> Columns:
    """Read the columns from the open dataset.

    Raises:
        DataError: there are no actions, no rows, or rows are out of order.
    """
    if ACTION not in dataset.meta.features:
        known = ", ".join(dataset.meta.features)
        raise DataError(f"The dataset has no {ACTION!r} column; it has {known}. pixelvla learns from actions.")
    table = dataset.hf_dataset.data.table
    tasks = dataset.meta.tasks.sort_values("task_index")
    columns = Columns(
        episode_N=table["episode_index"].to_numpy().astype(np.int64),
        frame_N=table["frame_index"].to_numpy().astype(np.int64),
        timestamp_N=table["timestamp"].to_numpy().astype(np.float64),
        task_N=np.searchsorted(tasks["task_index"].to_numpy(), table["task_index"].to_numpy()).astype(np.int64),
        tasks=np.array([str(task) for task in tasks.index]),
        actions_NA=_matrix(table[ACTION]),
        state_NS=_matrix(table[STATE]) if STATE in table.column_names else np.zeros((len(table), 0), np.float32),
    )
    _check(columns)
    return columns


def _matrix(column: Any) -> np.ndarray:
    values = column.combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(values), -1)


def _check(columns: Columns) -> None:
    if not len(columns.episode_N):
        raise DataError("The dataset has no rows. Record at least one episode.")
    steps, episodes = np.diff(columns.frame_N), np.diff(columns.episode_N)
    wrong = np.flatnonzero(np.where(episodes == 0, steps != 1, (episodes < 0) | (columns.frame_N[1:] != 0)))
    if len(wrong):
        row = wrong[0] + 1
        raise DataError(
            f"The dataset's rows are out of order: {columns.place(row)} follows {columns.place(row - 1)}. "
            "Rewrite it with `lerobot-edit-dataset`."
        )
