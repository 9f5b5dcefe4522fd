"""What this distribution offers to pixelvla: the weights of openvla-mini, under the name ``mini``."""

from __future__ import annotations

from pathlib import Path

from pixelvla_core.api import Weights, hookimpl

FOLDER = Path(__file__).parent / "weights"


@hookimpl
def pixelvla_weights() -> list[Weights]:
    return [
        Weights(
            backbone="openvla",
            name="mini",
            folder=FOLDER,
            summary="openvla-mini, a small base model trained on tabletop demonstrations",
        )
    ]
