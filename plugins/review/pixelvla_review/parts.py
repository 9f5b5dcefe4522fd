"""The recording, the segmenter and the tracker, each built when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from pixelvla_core.annotate.models import Recording, Segmenter
from pixelvla_core.annotations.reader import read_manifest
from pixelvla_core.api import PluginManager, Prompt, Registry, configure
from pixelvla_core.errors import DataError


class Parts:
    """What the page needs besides the sidecar.

    Args:
        recording: the episodes.
        segmenter: makes the segmenter.
        tracker: makes a tracker that no other object uses; None redraws one frame only.
    """

    def __init__(
        self, recording: Recording, segmenter: Callable[[], Segmenter], tracker: Callable[[], Any] | None
    ) -> None:
        self.recording, self._segmenter, self.tracker = recording, segmenter, tracker
        self._built: Segmenter | None = None

    @classmethod
    def of(cls, folder: Path, dataset: str | None, recording: str, segmenter: str, tracker: str | None) -> Parts:
        """Find the parts by their names.

        Raises:
            UserError: a part is unknown, or the recording cannot be read or is not the annotated one.
        """
        manifest = read_manifest(folder)
        registry = PluginManager.load().registry
        source = cast(
            Recording, _build(registry, "recording", recording, dataset or manifest["dataset"], manifest["camera"])
        )
        if source.fingerprint != manifest["fingerprint"]:
            raise DataError(
                f"The annotations in {folder} were made for {manifest['dataset']!r} with fingerprint "
                f"{manifest['fingerprint'][:12]}, but {source.name} has {source.fingerprint[:12]}. Give the dataset "
                "that was annotated, or annotate this one."
            )
        registry.get("segmenter", segmenter)
        if tracker:
            registry.get("tracker", tracker)
        return cls(
            source,
            lambda: cast(Segmenter, _build(registry, "segmenter", segmenter)),
            (lambda: _build(registry, "tracker", tracker)) if tracker else None,
        )

    def segment(self, image: np.ndarray, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return the mask, bool[H, W], of what the prompts mark."""
        self._built = self._built or self._segmenter()
        return np.asarray(self._built.segment(image, prompts), dtype=bool)

    def frame(self, episode: int, frame: int) -> np.ndarray:
        """Return one frame, uint8[H, W, 3].

        Raises:
            DataError: there is no such frame, or it cannot be decoded.
        """
        lengths = self.recording.lengths
        if not 0 <= episode < len(lengths) or not 0 <= frame < lengths[episode]:
            raise DataError(f"{self.recording.name} has no frame {frame} of episode {episode}.")
        return self.recording.frames(episode, [frame])[0]


def _build(registry: Registry, kind: str, name: str, *more: Any) -> Any:
    component = registry.get(kind, name)
    return component.build(configure(component, {}, f"--{kind}"), *more)
