"""Ways to predict, compared on the CPU: timed in turn within one process, the peak memory of each in its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench import midsize
from bench.report import Figure
from bench.timing import in_turn, own_process, peak_mib

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

COMPARE = "compare"
Predictors = Callable[["OpenVLAAdapter", Iterable[str]], Mapping[str, Callable[[], object]]]


def measure(module: str, ways: Iterable[str], quick: bool) -> dict[str, Any]:
    """Start the processes; each runs the module's `--way`, and prints what `in_this_process` returns."""
    flags = ["--quick"] if quick else []
    found = own_process(module, "--way", COMPARE, *flags)
    return found | {"peak_mib": {way: own_process(module, "--way", way, *flags) for way in ways}}


def in_this_process(way: str, predictors: Predictors, ways: Iterable[str], to: str, quick: bool) -> Any:
    """Time all ways against one of them, or return the peak MiB of a process that predicts one way.

    Args:
        way: "compare", or one of `ways`.
        to: The way that the ratios refer to.
    """
    import torch

    base = midsize.backbone(midsize.TINY if quick else midsize.MIDSIZE)
    if way != COMPARE:
        call = predictors(base, [way])[way]
        for _ in range(3):
            call()
        return peak_mib()
    timings = in_turn(predictors(base, ways), rounds=3 if quick else 15)
    size = midsize.lm_parameters(base)
    return {"ways": timings.summary(to), "lm_parameters": size, "threads": torch.get_num_threads()}


def peaks(found: Mapping[str, Any]) -> list[Figure]:
    """The figures of memory in what `measure` returned."""
    return [
        Figure(what=f"peak memory of a prediction: {way}", value=value, unit="MiB")
        for way, value in found["peak_mib"].items()
    ]
