"""The ``mixture`` dataset: several datasets as one, each with its share of the samples.

Shapes: P parts, H horizon, A action dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from pixelvla_core.contract.contract import CONVENTIONS, ActionContract
from pixelvla_core.contract.conventions import UNKNOWN_FPS
from pixelvla_core.contract.statistics import Statistics
from pixelvla_core.data.build import build_dataset
from pixelvla_core.data.config import MixtureConfig
from pixelvla_core.seam.batch import Sample

if TYPE_CHECKING:
    from pixelvla_core.plugins import Registry


class Mixture:
    """Random access to the samples of all parts; see ``pixelvla_core.data.dataset.Dataset``.

    Which part an index belongs to follows from the shares alone, so order and caches are those of any other dataset.
    One epoch shows every frame of every part at least once, and frames of a part with a larger share than its size
    more often, evenly spread.

    Args:
        registry: Where the parts are looked up.

    Raises:
        UserError: a part is not installed, or its options or its data are refused.
        ContractError: the parts' actions mean different things; names each field that differs.
    """

    def __init__(self, config: MixtureConfig, registry: Registry) -> None:
        self.config, self.camera = config, config.camera
        self.parts = {
            name: build_dataset(part.name, part.options, registry, f"data.options.parts.{name}.options")
            for name, part in config.parts.items()
        }
        sizes_P = [len(part) for part in self.parts.values()]
        self._counts_P = counts(sizes_P, [part.weight for part in config.parts.values()])
        self._ends_P = np.cumsum(self._counts_P)
        self._contract = self._merged()
        self.fps = self._contract.fps
        self.fingerprint = self._contract.fingerprint

    def __len__(self) -> int:
        return int(self._ends_P[-1])

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        """Return one frame of one part, its image under the mixture's camera name."""
        name, frame, _ = self._place(index)
        part = self.parts[name]
        sample = part.sample(frame, horizon=horizon, rng=rng, images=images)
        return replace(
            sample,
            images=self._renamed(sample.images, part.camera),
            prompts=self._renamed(sample.prompts, part.camera),
            masks=self._renamed(sample.masks, part.camera),
        )

    def frame_key(self, index: int) -> str:
        """Return ``"bridge/ep12/frame30"``, with ``"#1"`` behind it where the epoch shows the frame again."""
        name, frame, again = self._place(index)
        return f"{name}/{self.parts[name].frame_key(frame)}" + (f"#{again}" if again else "")

    def contract(self) -> ActionContract:
        """Return the parts' common contract, with the statistics of all of them."""
        return self._contract

    def _place(self, index: int) -> tuple[str, int, int]:
        """The part, its frame, and how often the epoch has shown this frame before."""
        p = int(np.searchsorted(self._ends_P, index, side="right"))
        name, count = list(self.parts)[p], self._counts_P[p]
        size, place = len(self.parts[name]), index - int(self._ends_P[p]) + count
        frame = place * size // count
        return name, frame, place - -(-frame * count // size)

    def _renamed[T](self, images: Mapping[str, T], camera: str) -> dict[str, T]:
        return {self.camera if name == camera else name: value for name, value in images.items()}

    def _merged(self) -> ActionContract:
        found = {name: replace(part.contract(), camera=self.camera) for name, part in self.parts.items()}
        if self.config.mixed_fps and len({contract.fps for contract in found.values()}) > 1:
            found = {name: replace(contract, fps=UNKNOWN_FPS) for name, contract in found.items()}
        for (one, first), (two, second) in combinations(found.items(), 2):
            first.check_compatible(second, mine=f"parts.{one}", theirs=f"parts.{two}")
        common = _known_to_all(list(found.values()))
        facts = [
            [name, part.fingerprint, n] for (name, part), n in zip(self.parts.items(), self._counts_P, strict=True)
        ]
        return replace(
            common,
            statistics=merged([contract.statistics for contract in found.values()], self._counts_P),
            dataset="+".join(contract.dataset for contract in found.values()),
            revision="",
            fingerprint=hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        )


def _known_to_all(contracts: Sequence[ActionContract]) -> ActionContract:
    """The first of several contracts that agree where they know; what one does not know, all together do not."""
    fps = contracts[0].fps if all(contract.knows("fps") for contract in contracts) else UNKNOWN_FPS
    unknown = tuple(name for name in CONVENTIONS if not all(contract.knows(name) for contract in contracts))
    return replace(contracts[0], fps=fps, unknown=unknown)


def counts(sizes: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    """Return how many samples of each part one epoch has: in the ratio of the weights, but never fewer than it holds.

    Without weights that is each part's size.
    """
    given = [weight for weight in weights if weight is not None]
    if not given:
        return list(sizes)
    scale = max(size / weight for size, weight in zip(sizes, given, strict=True))
    return [max(size, round(weight * scale)) for size, weight in zip(sizes, given, strict=True)]


def merged(parts: Sequence[Statistics], shares: Sequence[float]) -> Statistics:
    """Return the statistics of several datasets together.

    Mean, deviation and extremes are those of the mixture. The quantiles are the outermost of the parts', so that at
    least 98 % of each part's values lie between them: those of the mixture cannot be told from those of its parts.

    Args:
        shares: How much each part counts.
    """
    values = {name: np.array([part.to_json()[name] for part in parts]) for name in parts[0].to_json()}
    share_P1 = np.array(shares, float)[:, None] / sum(shares)
    mean_A = (share_P1 * values["mean"]).sum(0)
    variance_A = (share_P1 * (values["std"] ** 2 + (values["mean"] - mean_A) ** 2)).sum(0)
    return Statistics(
        mean=tuple(mean_A),
        std=tuple(np.sqrt(variance_A)),
        min=tuple(values["min"].min(0)),
        max=tuple(values["max"].max(0)),
        q01=tuple(values["q01"].min(0)),
        q99=tuple(values["q99"].max(0)),
    )
