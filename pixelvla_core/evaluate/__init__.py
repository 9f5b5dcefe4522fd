"""Closed-loop evaluation: seeded episodes in parallel processes, and the statistics of their outcomes.

Here is what reads results; it needs no torch. ``pixelvla_core.evaluate.run`` has ``evaluate``, which makes them.
"""

from __future__ import annotations

from pixelvla_core.evaluate.records import Job, Record
from pixelvla_core.evaluate.results import Cell, Results, load, merge, paired, save
from pixelvla_core.evaluate.statistics import Comparison, Rate, mcnemar, wilson

__all__ = [
    "Cell",
    "Comparison",
    "Job",
    "Rate",
    "Record",
    "Results",
    "load",
    "mcnemar",
    "merge",
    "paired",
    "save",
    "wilson",
]
