"""Datasets of any length for ``bench.annotate``: a short recording made by LeRobot, repeated in files and tables.

The scene is drawn: a table with grain, a cup, and an arm from above that closes on it and lifts it. One video file, as
LeRobot encodes it, holds ten episodes; longer datasets link it again and again under the next names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

EPISODES, LENGTH, CLOSING = 10, 40, 20
"""In the recording, frames of each, and the one on which the gripper closes."""
KEY = "observation.images.front"
TASKS = ("pick up the red cup", "put the red cup on the plate", "lift the red cup")


def scene(episode: int, frame: int, size: tuple[int, int]) -> np.ndarray:
    """Draw one frame, uint8[*size, 3]."""
    import cv2

    height, width = size
    grain = np.random.default_rng(episode).normal(0, 4, (height, width, 1))
    image = (np.linspace(120, 170, height)[:, None, None] + grain) * np.array([1.0, 0.9, 0.75])
    image = np.clip(image, 0, 255).astype(np.uint8)
    unit, lift = height / 256, max(0, frame - CLOSING) * 3
    x, y = place(episode)
    arm = y - 24 - 5 * max(0, CLOSING - frame) - lift
    cv2.circle(image, (int(x * unit), int((y - lift) * unit)), int(18 * unit), (200, 40, 40), -1)
    cv2.rectangle(image, (int((x - 8) * unit), 0), (int((x + 8) * unit), int(arm * unit)), (60, 60, 66), -1)
    for hand in (-20, 12):
        corner = int((x + hand) * unit), int(arm * unit)
        cv2.rectangle(image, corner, (corner[0] + int(8 * unit), corner[1] + int(26 * unit)), (30, 30, 34), -1)
    return image


def place(episode: int) -> tuple[float, float]:
    """Where the cup stands, in pixels of a frame of 256 x 256."""
    x, y = np.random.default_rng(1000 + episode).uniform((60, 150), (196, 215))
    return float(x), float(y)


def record(folder: Path, size: tuple[int, int]) -> Path:
    """Record the episodes with LeRobot's own API, as one video file of frames of size (height, width)."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    features = {
        KEY: {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["z", "gripper_width"]},
        "action": {"dtype": "float32", "shape": (7,), "names": names},
    }
    dataset = LeRobotDataset.create("bench/annotate", fps=10, features=features, root=folder, video_backend="pyav")
    for episode in range(EPISODES):
        for frame in range(LENGTH):
            dataset.add_frame(_step(episode, frame) | {KEY: scene(episode, frame, size)})
        dataset.save_episode()
    dataset.finalize()
    return folder


def _step(episode: int, frame: int) -> dict[str, Any]:
    opened = float(frame < CLOSING)
    action = np.random.default_rng([episode, frame]).normal(0, 0.02, 7).astype(np.float32)
    action[-1] = opened
    state = np.array([frame, 0.08 * opened], np.float32)
    return {"observation.state": state, "action": action, "task": TASKS[episode % len(TASKS)]}


def repeated(recorded: Path, folder: Path, episodes: int) -> Path:
    """Make a dataset of so many episodes, a multiple of those in the recording."""
    times = episodes // EPISODES
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    for name in ("tasks.parquet", "stats.json"):
        shutil.copy(recorded / "meta" / name, folder / "meta" / name)
    info = json.loads((recorded / "meta" / "info.json").read_text(encoding="utf-8"))
    total = {"total_episodes": episodes, "total_frames": episodes * LENGTH, "splits": {"train": f"0:{episodes}"}}
    (folder / "meta" / "info.json").write_text(json.dumps(info | total), encoding="utf-8")
    known = pq.read_table(recorded / "meta" / "episodes")
    data = pq.read_table(recorded / "data")
    pq.write_table(_many(_episodes(known, turn) for turn in range(times)), _file(folder, "meta/episodes", "parquet"))
    pq.write_table(_many(_rows(data, turn) for turn in range(times)), _file(folder, "data", "parquet"))
    (video,) = (recorded / "videos" / KEY).rglob("*.mp4")
    for turn in range(times):
        os.link(video, _file(folder, f"videos/{KEY}", "mp4", turn))
    return folder


def _file(folder: Path, below: str, ending: str, number: int = 0) -> Path:
    path = folder / below / "chunk-000" / f"file-{number:03d}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _many(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables(list(tables)).combine_chunks()


def _episodes(table: pa.Table, turn: int) -> pa.Table:
    """The recording's table of episodes as the turn-th part of a longer one."""
    table = _shifted(table, turn * EPISODES, "episode_index")
    table = _shifted(table, turn * EPISODES * LENGTH, "dataset_from_index", "dataset_to_index")
    return _shifted(table, turn, f"videos/{KEY}/file_index")


def _rows(table: pa.Table, turn: int) -> pa.Table:
    return _shifted(_shifted(table, turn * EPISODES, "episode_index"), turn * EPISODES * LENGTH, "index")


def _shifted(table: pa.Table, by: int, *names: str) -> pa.Table:
    for name in names:
        place = table.column_names.index(name)
        values = pc.add(table[name], by).cast(table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), values)
    return table
