"""How well the annotations of one sidecar agree with those of another, such as a simulator's exact ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.errors import DataError


@dataclass(frozen=True)
class Agreement:
    """What a comparison found; only objects to act on (instance 0) count.

    Attributes:
        episodes: that the truth has usable masks of.
        kept: episodes of these of which the other has usable masks too.
        iou: mean overlap (intersection over union) of the masks on frames on which both have one.
        first_iou: the same on the first such frame of each episode.
        missed: share of the truth's frames, in kept episodes, on which the other sees nothing.
        wrong: share of kept episodes whose first mask does not even touch the truth's.
    """

    episodes: int
    kept: int
    iou: float
    first_iou: float
    missed: float
    wrong: float

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.episodes} episodes kept ({self.kept / max(self.episodes, 1):.1%}); overlap with the "
            f"truth {self.iou:.3f} (first frames {self.first_iou:.3f}), nothing seen on {self.missed:.1%} of frames, "
            f"another object in {self.wrong:.1%} of episodes"
        )


def compare(folder: Path, truth: Path, cache: Path | None = None) -> Agreement:
    """Compare a sidecar with the truth.

    Args:
        folder: the sidecar to judge.
        truth: the sidecar to judge it by, of the same dataset and camera.
        cache: folder for the memory-mapped copies of their rows.

    Raises:
        DataError: one of them is damaged, or they are of different datasets, cameras or image sizes.
    """
    judged, exact = Sidecar(folder, cache=cache), Sidecar(truth, cache=cache)
    for name, one, two in (("dataset", judged.fingerprint, exact.fingerprint), ("camera", judged.camera, exact.camera)):
        if one != two:
            raise DataError(f"{folder} and {truth} are of different {name}s ({one[:12]} and {two[:12]}).")
    ours, theirs = _usable(judged), _usable(exact)
    overlaps = {key: _overlap(ours[key], theirs[key]) for key in sorted(ours.keys() & theirs.keys())}
    episodes, kept = {episode for episode, _ in theirs}, {episode for episode, _ in ours}
    kept &= episodes
    firsts = {episode: overlap for (episode, _), overlap in reversed(overlaps.items())}
    due = [key for key in theirs if key[0] in kept]
    return Agreement(
        episodes=len(episodes),
        kept=len(kept),
        iou=_mean(list(overlaps.values())),
        first_iou=_mean(list(firsts.values())),
        missed=_mean([float(key not in ours) for key in due]),
        wrong=_mean([float(overlap == 0) for overlap in firsts.values()]),
    )


def _usable(sidecar: Sidecar) -> dict[tuple[int, int], Rle]:
    """(episode, frame) -> mask of the object to act on."""
    found = {}
    for place in np.flatnonzero(sidecar.usable()):
        row = sidecar.row(int(place))
        if row.instance == 0 and row.mask is not None:
            found[row.episode, row.frame] = row.mask
    return found


def _overlap(one: Rle, two: Rle) -> float:
    if (one.height, one.width) != (two.height, two.width):
        raise DataError(
            f"Masks of {one.height} x {one.width} and {two.height} x {two.width} pixels cannot be compared; annotate "
            "images of one size."
        )
    first, second = one.decode(), two.decode()
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
