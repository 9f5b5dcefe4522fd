"""The toy dataset of a robot that reports a state, as a plugin for tests of training."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "toy"))
from pixelvla_toy import Squares

from pixelvla_core.api import Component, Sample, hookimpl


class SquaresWithState(Squares):
    def sample(self, index: int, **how: Any) -> Sample:
        return replace(super().sample(index, **how), state=np.linspace(-1, 1, 7, dtype=np.float32))


@hookimpl
def pixelvla_datasets() -> list[Component]:
    config = "pixelvla_toy:SquaresConfig"
    return [Component(name="squares", target="squares_with_state:SquaresWithState", config=config)]
