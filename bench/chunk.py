"""Eight steps in one forward pass, against eight of the base's own autoregressive actions.

A random OpenVLA with a language model of 150 M parameters, one observation, on the CPU. `chunk` is one prediction of
the continuous head: 8 steps of 7 values from one pass. `native` is one action of the base: a pass over image and
prompt, then six single tokens with keys and values kept. Both share the base and are timed in rounds of A B B A within
one process, until the 95 % interval is 2 % of the ratio wide or 90 seconds are over; the figure is 8 x native / chunk,
the median over the rounds. Peak memory is that of a process of its own.

Target: at least 7 times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import midsize, predictions
from bench.report import Figure, Report
from bench.timing import Enough, Ratio

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

WAYS = {"chunk": ("l1", (midsize.HORIZON, midsize.ACTION_DIM)), "native": ("native", (1, midsize.ACTION_DIM))}
AT_LEAST = 7.0
ENOUGH = Enough(width=0.02, limit_s=90)


def predictors(base: OpenVLAAdapter, ways: Iterable[str] = WAYS) -> dict[str, Callable[[], Any]]:
    """Way -> a call that predicts once; each was tried and gave actions of the right shape."""
    calls = {}
    for way in ways:
        head, shape = WAYS[way]
        model = midsize.wrapped(base, head=head)
        batch = model.collate([midsize.sample()], train=False).to(model.device)
        calls[way] = partial(model.predict, batch)
        found = tuple(calls[way]().shape[1:])
        assert found == shape, f"{way} gave actions {found}, not {shape}"
    return calls


def saved(native: dict[str, Any], variant: str = "") -> Figure:
    """How many times as long as a chunk 8 native actions take.

    Args:
        native: The row of `Timings.summary`, its ratio to a chunk.
    """
    what = f"a chunk of 8 steps against 8 native actions{variant}"
    return Ratio(**native["ratio"]).figure(
        lambda ratio: midsize.HORIZON * ratio, what=what, unit="x", at_least=AT_LEAST
    )


def measure(quick: bool) -> Report:
    found = predictions.measure("bench.chunk", WAYS, quick)
    ways = found["ways"]
    figures = [
        saved(ways["native"]),
        Figure(what="latency of a chunk of 8 steps", value=1000 * ways["chunk"]["median_s"], unit="ms"),
        Figure(what="latency of one native action", value=1000 * ways["native"]["median_s"], unit="ms"),
    ]
    return Report(figures=[*figures, *predictions.peaks(found)], details=found)


if __name__ == "__main__":
    predictions.main(__doc__, predictors, WAYS, "chunk", ENOUGH, measure)
