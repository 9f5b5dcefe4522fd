"""Frames of a few episodes for the report: images as the camera gave them, with masks and prompts beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pixelvla_core.evaluate.user import to_plain
from pixelvla_core.files import atomic_folder
from pixelvla_core.prompts import Prompt

FRAMES = 8


@dataclass
class Film:
    """The frames of one episode.

    Args:
        root: Folder of the results.
        name: Folder of this film within it.
    """

    root: Path
    name: str
    _frames: list[tuple[np.ndarray, np.ndarray | None, tuple[Prompt, ...]]] = field(default_factory=list)

    def keep(self, image: np.ndarray, mask: np.ndarray | None, prompts: tuple[Prompt, ...]) -> None:
        """Add a frame: uint8[H, W, 3], its mask bool[H, W] if there is one, and the prompts on it."""
        self._frames.append((image, mask, prompts))

    def save(self) -> str:
        """Write at most ``FRAMES`` frames, evenly spread with the first and the last, and return the folder's name.

        ``images.png`` and ``masks.png`` hold them side by side, left to right; ``prompts.json`` lists the prompts.
        """
        picks = np.linspace(0, len(self._frames) - 1, min(FRAMES, len(self._frames))).round().astype(int)
        frames = [self._frames[pick] for pick in picks]
        with atomic_folder(self.root / self.name) as folder:
            Image.fromarray(np.concatenate([image for image, _, _ in frames], 1)).save(folder / "images.png")
            masks = [np.zeros(image.shape[:2], bool) if mask is None else mask for image, mask, _ in frames]
            Image.fromarray(np.concatenate(masks, 1)).save(folder / "masks.png")
            listed = [[to_plain(prompt) for prompt in prompts] for _, _, prompts in frames]
            (folder / "prompts.json").write_text(json.dumps(listed) + "\n", encoding="utf-8")
        return self.name
