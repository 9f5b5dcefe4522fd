"""Statistics of the robot's states in a dataset, for a base that comes without any.

Shapes: N frames, S state dimensions.
"""

from __future__ import annotations

import numpy as np

from pixelvla_core.contract.statistics import Statistics
from pixelvla_core.data.dataset import Dataset
from pixelvla_core.errors import DataError

MOST = 4096
"""Frames that are looked at, evenly spread over the dataset; a mean over them is off by 1/64 deviation."""


def state_statistics(dataset: Dataset) -> Statistics | None:
    """Statistics of a dataset's states; None if frames have none, or states of different lengths.

    Raises:
        DataError: a state is not finite.
    """
    rng = np.random.default_rng(0)  # prompts are drawn and not looked at
    places = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST)).astype(int))
    samples = [dataset.sample(int(index), horizon=1, rng=rng, images=False) for index in places]
    found = [np.ravel(sample.state) for sample in samples if sample.state is not None]
    if len(found) < len(samples) or len({len(state) for state in found}) != 1 or not len(found[0]):
        return None
    for sample, state in zip(samples, found, strict=True):
        if not np.isfinite(state).all():
            raise DataError(
                f"The state of {sample.key} is {state.tolist()}; every value must be finite. Look for more of them "
                "with `pixelvla data lint`, and leave those episodes out."
            )
    return Statistics.of(np.stack(found))
