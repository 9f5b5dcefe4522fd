"""Step 5: which object each instruction is about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from pixelvla_core.annotate.steps.step import Product, Step

_TOGETHER = 256
"""Instructions in one task: what is asked again if the work is interrupted."""


class Targets(Step):
    """Asks about each instruction once, however many episodes have it."""

    name = "targets"
    title = "Reason about instructions"
    unit = "instructions"
    schema = pa.schema(
        [
            pa.field("instruction", pa.string(), nullable=False),
            pa.field("target", pa.string(), nullable=False),
            pa.field("reason", pa.string(), nullable=False),
        ]
    )

    def facts(self) -> dict[str, Any]:
        return {"instructions": self._instructions, "reasoner": self.work.describe("reasoner")}

    @cached_property
    def _instructions(self) -> list[str]:
        return sorted({self.work.recording.instruction(episode) for episode in self.work.episodes})

    def tasks(self) -> Sequence[int]:
        return range(-(-len(self._instructions) // _TOGETHER))

    def run(self, key: int) -> Product:
        asked = self._instructions[key * _TOGETHER : (key + 1) * _TOGETHER]
        answers = self.work.reasoner.targets(asked)
        return Product(
            [
                {"instruction": instruction, "target": answer.text, "reason": answer.reason}
                for instruction, answer in zip(asked, answers, strict=True)
            ]
        )
