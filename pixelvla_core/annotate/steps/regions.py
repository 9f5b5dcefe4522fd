"""Step 4: region proposals, the gripper's minimal box with a margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pixelvla_core.annotate.regions import intersection_over_union, region_proposal
from pixelvla_core.annotate.steps.grippers import Grippers
from pixelvla_core.annotate.steps.step import Product, Step
from pixelvla_core.annotate.work import mask_of
from pixelvla_core.prompts import Box


class Regions(Step):
    """Of an episode in two chunks, the surer mask counts; ``agreement`` says how well the two fit."""

    name = "regions"
    title = "Propose regions"
    after = ("grippers",)
    schema = pa.schema(
        [
            pa.field("episode", pa.int32(), nullable=False),
            pa.field("region", pa.list_(pa.float32())),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("agreement", pa.float32(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )

    def facts(self) -> dict[str, Any]:
        return {"margin": self.work.recipe.margin}

    def tasks(self) -> Sequence[int]:
        return [0]

    def run(self, key: int) -> Product:
        found: dict[int, dict[str, Any]] = {}
        agreement: dict[int, float] = {}
        for row in self.work.workspace.read_all("grippers", Grippers(self.work).tasks()):
            episode = row["episode"]
            if (other := found.get(episode)) is not None:
                agreement[episode] = _agreement(row, other)
            if other is None or row["score"] > other["score"]:
                found[episode] = row
        return Product([self._row(found[episode], agreement.get(episode, 1.0)) for episode in sorted(found)])

    def _row(self, row: dict[str, Any], agreement: float) -> dict[str, Any]:
        mask = mask_of(row)
        region = None if mask is None else edges(region_proposal(mask, self.work.recipe.margin))
        known = {"episode": row["episode"], "score": row["score"], "reason": row["reason"]}
        return known | {"region": region, "agreement": agreement}


def edges(box: Box) -> list[float]:
    """A box as a list of numbers."""
    return [box.x0, box.y0, box.x1, box.y1]


def _agreement(row: dict[str, Any], other: dict[str, Any]) -> float:
    first, second = mask_of(row), mask_of(other)
    return 0.0 if first is None or second is None else intersection_over_union(first, second)
