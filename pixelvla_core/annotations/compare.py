"""How well the annotations of one sidecar agree with those of another, such as a simulator's exact ones.

Only objects to act on (instance 0) in rows with status "ok" count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a comparison found.

    Attributes:
        episodes: that the truth has masks of.
        kept: episodes of these of which the other has masks too.
        iou: mean overlap (intersection over union) of the masks on frames on which both have one.
        median: the median of the same.
        first_iou: the mean on the first such frame of each episode.
        first_median: the median of the same.
        missed: share of the truth's frames, in kept episodes, on which the other sees nothing.
        extra: share of the other's frames, in kept episodes, on which the truth sees nothing.
        wrong: share of kept episodes whose first mask does not even touch the truth's.
        targets: the same for the episodes about each target, by what the truth calls it.
    """

    episodes: int
    kept: int
    iou: float
    median: float
    first_iou: float
    first_median: float
    missed: float
    extra: float
    wrong: float
    targets: Mapping[str, Agreement] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.episodes} episodes kept ({self.kept / max(self.episodes, 1):.1%}); overlap with the "
            f"truth {self.iou:.3f} (first frames {self.first_iou:.3f}), nothing seen on {self.missed:.1%} of frames, "
            f"another object in {self.wrong:.1%} of episodes"
        )


@dataclass
class _Episode:
    """One episode: masks that are due, masks that the other has, and the overlaps of those on one frame, in order."""

    target: str
    due: int = 0
    seen: int = 0
    overlaps: list[float] = field(default_factory=list)


def compare(folder: Path, truth: Path, cache: Path | None = None) -> Agreement:
    """Compare a sidecar with the truth, mask by mask, so that memory stays flat.

    Args:
        folder: the sidecar to judge.
        truth: the sidecar to judge it by, of the same dataset and camera.
        cache: folder for what :class:`Sidecar` keeps.

    Raises:
        DataError: one of them is damaged, or they are of different datasets, cameras or image sizes.
    """
    judged, exact = Sidecar(folder, cache=cache), Sidecar(truth, cache=cache)
    for name, one, two in (("dataset", judged.fingerprint, exact.fingerprint), ("camera", judged.camera, exact.camera)):
        if one != two:
            raise DataError(f"{folder} and {truth} are of different {name}s ({one[:12]} and {two[:12]}).")
    episodes = _episodes(judged, exact)
    named = sorted({each.target for each in episodes})
    targets = {name: _agreement([each for each in episodes if each.target == name], {}) for name in named}
    return _agreement(episodes, targets)


def table(agreement: Agreement, most: int) -> str:
    """The agreement in lines and columns: all episodes, then the ``most`` frequent targets."""
    named = sorted(agreement.targets.items(), key=lambda each: (-each[1].episodes, each[0]))
    width = max(len(name) for name in ("target", "all", *(name for name, _ in named[:most])))
    head = f"{'':{width}}  {'':26}  {'frames':^15}  {'overlap':^13}  {'first frames':^13}".rstrip()
    columns = f"{'target':{width}}  episodes     kept    wrong   missed   extra    mean median    mean median"
    lines = [_line(name, each, width) for name, each in (("all", agreement), *named[:most])]
    left = [f"and {len(named) - most} more targets"] if len(named) > most else []
    return "\n".join([head, columns, *lines, *left])


def _line(name: str, found: Agreement, width: int) -> str:
    overlaps = (found.iou, found.median, found.first_iou, found.first_median)
    mean, median, first_mean, first_median = (f"{each:.3f}" if found.kept else "-" for each in overlaps)
    wrong, missed, extra = (f"{each:.1%}" if found.kept else "-" for each in (found.wrong, found.missed, found.extra))
    kept = f"{found.kept / max(found.episodes, 1):.1%}"
    return (
        f"{name:{width}}  {found.episodes:>8}  {kept:>7}  {wrong:>7}  {missed:>7} {extra:>7}  "
        f"{mean:>6} {median:>6}  {first_mean:>6} {first_median:>6}"
    )


def _episodes(judged: Sidecar, exact: Sidecar) -> list[_Episode]:
    ours, theirs = _masked(judged), _masked(exact)
    episode_M, frame_M, _ = exact.places(theirs)
    other_M = judged.rows_of(episode_M, frame_M)
    other_M[~np.isin(other_M, ours)] = -1
    found: dict[int, _Episode] = {}
    for episode, row, other in zip(episode_M.tolist(), theirs.tolist(), other_M.tolist(), strict=True):
        if episode not in found:
            found[episode] = _Episode(" ".join(exact.target(row).split()))
        found[episode].due += 1
        if other >= 0:
            found[episode].overlaps.append(_overlap(judged.mask(other), exact.mask(row)))
    for episode, seen in zip(*np.unique(judged.places(ours)[0], return_counts=True), strict=True):
        if episode in found:
            found[episode].seen = int(seen)
    return list(found.values())


def _masked(sidecar: Sidecar) -> np.ndarray:
    """int64[M]: rows that count."""
    rows = np.flatnonzero(sidecar.usable())
    return rows[sidecar.places(rows)[2] == 0]


def _agreement(episodes: Sequence[_Episode], targets: Mapping[str, Agreement]) -> Agreement:
    kept = [each for each in episodes if each.seen]
    overlaps = [overlap for each in kept for overlap in each.overlaps]
    firsts = [each.overlaps[0] for each in kept if each.overlaps]
    due, seen, both = sum(each.due for each in kept), sum(each.seen for each in kept), len(overlaps)
    return Agreement(
        episodes=len(episodes),
        kept=len(kept),
        iou=_mean(overlaps),
        median=float(np.median(overlaps)) if overlaps else 0.0,
        first_iou=_mean(firsts),
        first_median=float(np.median(firsts)) if firsts else 0.0,
        missed=(due - both) / max(due, 1),
        extra=(seen - both) / max(seen, 1),
        wrong=_mean([float(overlap == 0) for overlap in firsts]),
        targets=targets,
    )


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    if one.shape != two.shape:
        raise DataError(
            f"Masks of {one.shape[0]} x {one.shape[1]} and {two.shape[0]} x {two.shape[1]} pixels cannot be compared; "
            "annotate images of one size."
        )
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
