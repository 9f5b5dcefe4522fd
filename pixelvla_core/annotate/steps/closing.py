"""Step 1: on which frame the gripper first closes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pixelvla_core.annotate.close import GripperSignal, first_close, resolve_gripper
from pixelvla_core.annotate.compose import thumbnail
from pixelvla_core.annotate.filters import CORRUPT, NO_CLOSING
from pixelvla_core.annotate.steps.step import Product, Step
from pixelvla_core.errors import DataError

_SAMPLE = 200
"""Episodes from which the meaning of the gripper's values is read."""


class Closing(Step):
    """Finds the frame and keeps a thumbnail of it."""

    name = "closing"
    title = "Find where grippers close"
    schema = pa.schema(
        [
            pa.field("episode", pa.int32(), nullable=False),
            pa.field("close_frame", pa.int32()),
            pa.field("thumbnail", pa.binary()),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )

    def facts(self) -> dict[str, Any]:
        recording = self.work.recording
        return {
            "fingerprint": recording.fingerprint,
            "camera": recording.camera,
            "profile": self.work.recipe.profile,
            "shards": [len(self.work.shards), self.work.recipe.episodes_per_shard],
            "episodes": self.work.recipe.episodes,
        }

    @cached_property
    def signal(self) -> GripperSignal:
        """What the gripper's values mean.

        Raises:
            DataError: names and data do not settle it; name a profile.
        """
        recording, episodes = self.work.recording, self.work.episodes
        sample = [episodes[place] for place in np.unique(np.linspace(0, len(episodes) - 1, _SAMPLE).astype(int))]
        states = [recording.states(episode) for episode in sample]
        return resolve_gripper(
            recording.action_names,
            recording.state_names,
            [recording.actions(episode) for episode in sample],
            None if any(state is None for state in states) else [state for state in states if state is not None],
            self.work.recipe.profile,
        )

    def run(self, key: int) -> Product:
        shard = self.work.shards[key]
        frames = {episode: self._frame(episode) for episode in shard}
        closing = {episode: frame for episode, frame in frames.items() if frame is not None}
        read = self.work.recording.frames
        found = dict(self.work.ahead_of(list(closing), lambda episode: read(episode, [closing[episode]])))
        return Product([self._row(episode, frames[episode], found.get(episode)) for episode in shard])

    def _frame(self, episode: int) -> int | None:
        recording = self.work.recording
        return first_close(self.signal, recording.actions(episode), recording.states(episode))

    @staticmethod
    def _row(episode: int, frame: int | None, images: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"episode": episode, "close_frame": None, "thumbnail": None, "reason": ""}
        if frame is None:
            return row | {"reason": NO_CLOSING}
        if isinstance(images, DataError):
            return row | {"reason": f"{CORRUPT}: {images}"}
        return row | {"close_frame": frame, "thumbnail": thumbnail(images[0]).tobytes()}
