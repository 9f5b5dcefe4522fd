"""Ways to predict, compared on the CPU: each against one of them within one process, peak memory in processes apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench import midsize
from bench.report import Figure, Report, parser, publish
from bench.timing import Enough, Timings, own_process, paired, peak_mib

if TYPE_CHECKING:
    from pixelvla_openvla.adapter import OpenVLAAdapter

COMPARE = "compare"
QUICK = Enough(width=1.0, limit_s=0, least=2)
Predictors = Callable[["OpenVLAAdapter", Iterable[str]], Mapping[str, Callable[[], object]]]


def measure(module: str, ways: Iterable[str], quick: bool) -> dict[str, Any]:
    """Start the processes; each runs the module's `--way`, and prints what `in_this_process` returns."""
    flags = ["--quick"] if quick else []
    found = own_process(module, "--way", COMPARE, *flags)
    return found | {"peak_mib": {way: own_process(module, "--way", way, *flags) for way in ways}}


def in_this_process(way: str, predictors: Predictors, ways: Iterable[str], to: str, enough: Enough, quick: bool) -> Any:
    """Time all ways against one of them, or return the peak MiB of a process that predicts one way.

    Args:
        way: "compare", or one of `ways`.
        to: The way that the ratios refer to.
        enough: How exact the ratios shall be.
    """
    import torch

    base = midsize.backbone(midsize.TINY if quick else midsize.MIDSIZE)
    if way != COMPARE:
        call = predictors(base, [way])[way]
        for _ in range(3):
            call()
        return peak_mib()
    timings = paired(predictors(base, ways), to, QUICK if quick else enough)
    size = midsize.lm_parameters(base)
    return {**rows(timings, to), "lm_parameters": size, "threads": torch.get_num_threads()}


def rows(timings: Mapping[str, Timings], to: str) -> dict[str, Any]:
    """What `paired` found as JSON: "ways" as `Timings.summary` has them, and "rounds" of each comparison."""
    ways: dict[str, Any] = {}
    for pair in timings.values():
        ways |= pair.summary(to)
    return {"ways": ways, "rounds": {name: len(pair.wall[name]) for name, pair in timings.items()}}


def peaks(found: Mapping[str, Any]) -> list[Figure]:
    """The figures of memory in what `measure` returned."""
    return [
        Figure(what=f"peak memory of a prediction: {way}", value=value, unit="MiB")
        for way, value in found["peak_mib"].items()
    ]


def main(
    doc: str | None,
    predictors: Predictors,
    ways: Iterable[str],
    to: str,
    enough: Enough,
    report: Callable[[bool], Report],
) -> None:
    """The command line of a benchmark that compares predictions: `report` starts the processes, `--way` is one."""
    arguments = parser(doc)
    arguments.add_argument("--way", choices=[COMPARE, *ways], help="measure this in this process")
    args = arguments.parse_args()
    if args.way:
        print(json.dumps(in_this_process(args.way, predictors, ways, to, enough, args.quick)))
    else:
        publish(report(args.quick), args.json)
