"""Which prompts and mask each frame of a LeRobotDataset gets. Shapes: N frames of all episodes, M masks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pixelvla_core.annotations.episodes import discarded
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.schema import OK
from pixelvla_core.api import Prompt
from pixelvla_core.data.prompting import KINDS, NONE, PromptMix, derive_prompts
from pixelvla_core.errors import DataError, RecipeError
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.source import Source

DEICTIC = "this object"


class Prompting:
    """Draws prompts and masks from the annotation sidecar.

    "first" is the first frame of the episode on which the target is annotated; "current" is the frame itself or, where
    the target is hidden, the latest one before it on which it was annotated.

    Raises:
        DataError: the sidecar is damaged or belongs to another dataset or camera.
    """

    def __init__(self, folder: Path, config: LeRobotConfig, source: Source, camera: str) -> None:
        self.folder, self.config, self.source = folder, config, source
        self.mix = mix_of(config)
        self.sidecar = Sidecar(folder, cache=source.cache)
        self.sidecar.check_dataset(source.fingerprint, source.name)
        if self.sidecar.camera != camera:
            raise DataError(
                f"The annotations in {folder} are of camera {self.sidecar.camera!r}, the samples of "
                f"{camera!r}. Set `camera` to {self.sidecar.camera!r}, or annotate {camera!r}."
            )
        episode_N = source.columns.episode_N
        self._row_N = self.sidecar.rows_of(episode_N, source.columns.frame_N)
        usable_N = np.append(self.sidecar.usable(), False)[self._row_N]
        rows = {
            "first": first_usable(self._row_N, usable_N, episode_N),
            "current": latest_usable(self._row_N, usable_N, episode_N),
        }
        self._first_row_N = rows["first"]
        self._prompt_row_N, self._mask_row_N = rows[config.prompt_frame], rows[config.mask_frame]

    def check(self, used: np.ndarray) -> None:
        """Refuse frames in use (int64, rows of the dataset) that lack what their prompts are made from.

        Raises:
            DataError: frames without an annotation, or episodes without a usable one, unless ``allow_missing``.
        """
        missing, blind = used[self._row_N[used] < 0], used[self._first_row_N[used] < 0]
        if self.config.discarded == "text":
            gone = list(discarded(self.folder))
            missing, blind = (rows[~np.isin(self.source.columns.episode_N[rows], gone)] for rows in (missing, blind))
        if self.config.allow_missing or not self.mix.uses_masks or not (len(missing) or len(blind)):
            return
        if len(missing):
            found, what = missing, "have no annotation"
        else:
            found, what = blind, f"have no annotation of status {OK!r} to make prompts from ({self._statuses(blind)})"
        raise DataError(
            f"{len(found)} of {len(used)} frames of {self.source.name} {what}, the first is "
            f"{self.source.columns.place(found[0])}. Annotate them, leave their episodes out with `episodes`, or set "
            "allow_missing=true to use them without prompts."
        )

    def draw(self, row: int, rng: np.random.Generator) -> tuple[tuple[Prompt, ...], np.ndarray | None]:
        """Return the prompts of one row of the dataset and its masks, bool[M, H, W] or None."""
        kinds = self.mix.draw(rng)
        prompt_row, mask_row = self._prompt_row_N[row], self._mask_row_N[row]
        if not kinds or prompt_row < 0:
            return (), None
        mask = self.sidecar.mask(prompt_row)
        prompts = derive_prompts(mask, kinds, rng)
        if rng.random() >= self.config.mask_probability or mask_row < 0:
            return prompts, None
        return prompts, (mask if mask_row == prompt_row else self.sidecar.mask(mask_row))[None]

    def word(self, instruction: str, row: int, rng: np.random.Generator) -> str:
        """Return the instruction of a sample with prompts, its target called "this object" as often as asked.

        Where the words alone always tell the target, a model need not learn to look at the prompt.
        """
        if not self.config.deictic or rng.random() >= self.config.deictic:
            return instruction
        return deictic(instruction, self.sidecar.target(self._prompt_row_N[row]))

    def _statuses(self, rows: np.ndarray) -> str:
        names, counts = np.unique(self.sidecar.statuses()[self._row_N[rows]], return_counts=True)
        return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))


def mix_of(config: LeRobotConfig) -> PromptMix:
    """The mix of prompt kinds that the options ask for.

    Raises:
        RecipeError: prompts are asked for without annotations to make them from.
    """
    if config.prompts is None:
        return PromptMix(dict.fromkeys(KINDS if config.annotations else (NONE,), 1.0))
    mix = PromptMix(config.prompts)
    if mix.uses_masks and not config.annotations:
        asked = [mixture for mixture, weight in config.prompts.items() if weight > 0 and mixture != NONE]
        raise RecipeError(
            f"prompts asks for {', '.join(asked)}, but there are no annotations to make them from. Give annotations, "
            "the folder of the sidecar, or train on text alone with data.options.prompts=null. (Weights that are given "
            "are added to those of the recipe; null takes the recipe's away.)"
        )
    return mix


def deictic(instruction: str, target: str) -> str:
    """Point instead of naming: "pick the red cube" with target "red cube" becomes "pick this object".

    Only whole words count, in upper or lower case; their first place is taken. Without them the instruction stays.
    """
    if not target.strip():
        return instruction
    words = r"\s+".join(map(re.escape, target.split()))
    return re.sub(rf"(?<!\w)(?:(?:the|an?)\s+)?{words}(?!\w)", DEICTIC, instruction, count=1, flags=re.IGNORECASE)


def first_usable(row_N: np.ndarray, usable_N: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """The annotation row of the first usable frame of each frame's episode, or -1."""
    first = np.full(episode_N[-1] + 1, -1)
    places = np.flatnonzero(usable_N)[::-1]
    first[episode_N[places]] = row_N[places]
    return first[episode_N]


def latest_usable(row_N: np.ndarray, usable_N: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """The annotation row of the latest usable frame up to each frame, within its episode, or -1."""
    place_N = np.maximum.accumulate(np.where(usable_N, np.arange(len(row_N)), -1))
    same_N = (place_N >= 0) & (episode_N[place_N] == episode_N)
    return np.where(same_N, row_N[place_N], -1)
