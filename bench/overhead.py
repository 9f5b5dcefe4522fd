"""What pixel awareness adds to a prediction: prompt encoder, pixel encoder and the tokens that they insert.

A random OpenVLA with a language model of 150 M parameters predicts a chunk of actions from one observation on the CPU:
plainly, without our encoders (`plain`), and with them, the object's mask and a prompt of each kind. All share the base
and the head. Each case is timed against the plain prediction in rounds of A B B A within one process, until the 95 %
interval of the ratio is a point wide or eight minutes are over; a figure is the median of the rounds. The levels come
from the base's own vision pass: every tower must have been called once. Peak memory is that of a process of its own.

Target: each kind of prompt adds at most 3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import midsize, predictions
from bench.report import Figure, Report
from bench.timing import Enough, Ratio

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

CASES = {
    "plain": (),
    "point": ("point",),
    "line": ("line",),
    "box": ("box",),
    "mask": ("mask",),
    "all four": ("point", "line", "box", "mask"),
}
AT_MOST = 3.0
ENOUGH = Enough(width=0.01, limit_s=480)
"""One point of the ratio decides about 3 % unless the truth is within half a point of it."""
PROMPTED = "all four"


def predictors(base: OpenVLAAdapter, cases: Iterable[str] = CASES) -> dict[str, Callable[[], object]]:
    """Name of the case -> a call that predicts once; each was tried, with the calls of the vision towers counted."""
    head = midsize.wrapped(base).head
    calls = {}
    for case in cases:
        model = midsize.wrapped(base, encoders=case != "plain")
        model.head = head
        batch = model.collate([midsize.sample(CASES[case])], train=False).to(model.device)
        calls[case] = partial(model.predict, batch)
        with counted(base.module) as counts:
            calls[case]()
        assert counts == [1, 1], f"{case}: the vision towers were called {counts} times, not once each"
    return calls


@contextmanager
def counted(base: Any) -> Iterator[list[int]]:
    """Count how often each vision tower reads an image."""
    towers = base.vision_backbone.towers
    counts = [0] * len(towers)

    def count(i: int, *_: Any) -> None:
        counts[i] += 1

    hooks = [tower.patch_embed.register_forward_hook(partial(count, i)) for i, tower in enumerate(towers)]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def added(case: str, row: dict[str, Any], variant: str = "") -> list[Figure]:
    """What a case adds to the plain prediction: by the clock, and in processor time, which other programs hardly touch.

    Args:
        row: The case's row of `Timings.summary`, its ratios to the plain prediction.
    """
    what = f"a mask and a prompt add{variant}: {case}"
    clock = Ratio(**row["ratio"]).figure(_per_cent, what=f"time that {what}", unit="%", at_most=AT_MOST)
    return [clock, Ratio(**row["cpu_ratio"]).figure(_per_cent, what=f"processor time that {what}", unit="%")]


def _per_cent(ratio: float) -> float:
    return 100 * (ratio - 1)


def measure(quick: bool) -> Report:
    found = predictions.measure("bench.overhead", ("plain", PROMPTED), quick)
    figures = [figure for case in CASES if case != "plain" for figure in added(case, found["ways"][case])]
    return Report(figures=[*figures, *predictions.peaks(found)], details=found)


if __name__ == "__main__":
    predictions.main(__doc__, predictors, CASES, "plain", ENOUGH, measure)
