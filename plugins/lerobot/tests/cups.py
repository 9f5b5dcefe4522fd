"""A small recording made with LeRobot's own API, and how it looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LENGTHS = (6, 9, 7)
HEIGHT, WIDTH = 48, 64
FPS = 5


def image(episode: int, frame: int) -> np.ndarray:
    """A red square on blue that moves to the right, over a gradient that differs by episode."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 1] = np.linspace(40 * episode, 40 * episode + 100, WIDTH).astype(np.uint8)
    picture[..., 2] = 200
    picture[mask(episode, frame)] = (255, 0, 0)
    return picture


def mask(episode: int, frame: int) -> np.ndarray:
    here = np.zeros((HEIGHT, WIDTH), bool)
    here[10 + episode : 22 + episode, 4 + 3 * frame : 16 + 3 * frame] = True
    return here


def action(episode: int, frame: int) -> np.ndarray:
    motion = np.random.default_rng([episode, frame]).normal(0, 0.02, 6)
    return np.append(motion, float(frame < 3)).astype(np.float32)


def record(root: Path, *, videos: bool) -> Path:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    kind = "video" if videos else "image"
    camera = {"dtype": kind, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.images.front": camera,
        "observation.images.wrist": camera,
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "finger_left", "finger_right"]},
        "action": {
            "dtype": "float32",
            "shape": (7,),
            "names": ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"],
        },
    }
    facts = {"fps": FPS, "features": features, "root": root, "use_videos": videos}
    dataset = LeRobotDataset.create("me/cups", **facts, video_backend="pyav")
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            opening = 0.04 if frame < 3 else 0.01
            dataset.add_frame(
                {
                    "observation.images.front": image(episode, frame),
                    "observation.images.wrist": image(episode, frame)[::-1],
                    "observation.state": np.array([frame, opening, -opening], np.float32),
                    "action": action(episode, frame),
                    "task": ("lift the cup", "push the cup", "lift the cup")[episode],
                }
            )
        dataset.save_episode()
    dataset.finalize()
    return root
