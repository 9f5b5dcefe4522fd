"""A short drawn LeRobotDataset as LIBERO's look in that format: two cameras, all episodes in one file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

EPISODES, LENGTH, CLOSING, SIDE = 6, 14, 7, 256
"""How many, frames of each, the one on which the gripper closes, and the side of the images."""
CAMERAS = ("image", "image2")
TASKS = (
    "pick up the red bowl on the left and place it in the basket",
    "put the red bowl on the plate",
    "pick up the red mug between the plate and the ramekin and place it on the plate",
)


def scene(episode: int, frame: int) -> np.ndarray:
    """Draw one frame of the first camera, uint8[SIDE, SIDE, 3]."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:] = np.linspace(110, 170, SIDE)[:, None, None] * np.array([1.0, 0.9, 0.75])
    image[thing(episode, frame)] = (200, 40, 40)
    x, y = place(episode)
    tip = int(y) - 22 - 12 * max(0, CLOSING - frame) - 4 * max(0, frame - CLOSING)
    cv2.rectangle(image, (int(x) - 8, 0), (int(x) + 8, tip), (60, 60, 66), -1)
    for hand in (-22, 14):
        cv2.rectangle(image, (int(x) + hand, tip), (int(x) + hand + 8, tip + 36), (30, 30, 34), -1)
    return image


def thing(episode: int, frame: int) -> np.ndarray:
    """Where the thing is, bool[SIDE, SIDE], as if nothing stood before it."""
    y, x = np.mgrid[:SIDE, :SIDE]
    left, top = place(episode)
    return (x - left) ** 2 + (y - top + 4 * max(0, frame - CLOSING)) ** 2 < 18**2


def place(episode: int) -> tuple[float, float]:
    """Where it stands at first."""
    x, y = np.random.default_rng(episode).uniform((60, 160), (196, 215))
    return float(x), float(y)


def record(root: Path, codec: str = "libsvtav1", apart: int = 2) -> Path:
    """Record all episodes with LeRobot's own API; actions and states have no names, as in many ported datasets.

    Args:
        root: the folder to make. codec: of the videos; LeRobot's default. apart: frames from one keyframe to the next.
    """
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    camera = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channel"]}
    features = {f"observation.images.{name}": camera for name in CAMERAS} | {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }
    facts = {"fps": 10, "features": features, "root": root, "video_backend": "pyav"}
    dataset = LeRobotDataset.create("me/bowls", **facts, rgb_encoder=RGBEncoderConfig(vcodec=codec, g=apart))
    for episode in range(EPISODES):
        for frame in range(LENGTH):
            dataset.add_frame(_step(episode, frame))
        dataset.save_episode()
    dataset.finalize()
    return root


def _step(episode: int, frame: int) -> dict:
    closed = frame >= CLOSING
    motion = np.random.default_rng([episode, frame]).normal(0, 0.1, 6)
    opening = 0.01 if frame > CLOSING else 0.04
    image = scene(episode, frame)
    return {
        "observation.images.image": image,
        "observation.images.image2": image[::-1, ::-1].copy(),
        "observation.state": np.array([*motion, opening, -opening], np.float32),
        "action": np.array([*motion, 1.0 if closed else -1.0], np.float32),
        "task": TASKS[episode % len(TASKS)],
    }
