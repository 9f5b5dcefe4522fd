"""What this distribution offers to pixelvla: the weights of pi0-mini, under the name ``mini``."""

from __future__ import annotations

from pathlib import Path

from pixelvla_core.api import Weights, hookimpl

FOLDER = Path(__file__).parent / "weights"
CONTRACT = {
    "fps": 5,
    "names": ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"],
    "gripper_open": 1.0,
    "gripper_closed": 0.0,
    "rotation": "euler_xyz_delta",
    "camera": "front",
    "orientation": "upright",
    "frame": "base",
}
"""Of the tabletop, where its demonstrations come from."""


@hookimpl
def pixelvla_weights() -> list[Weights]:
    return [
        Weights(
            backbone="pi0",
            name="mini",
            folder=FOLDER,
            summary="pi0-mini, a small base model of LeRobot's own classes",
            contract=CONTRACT,
        )
    ]
