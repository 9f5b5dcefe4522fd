"""The action contract of a run that begins with the weights of an earlier checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pixelvla_core.contract.contract import ActionContract
from pixelvla_core.errors import ContractError

STATISTICS = "statistics"
"""In ``start_changes``: take the data's statistics, rule and mask in place of those of an untrained start."""

_SCALE = ("statistics", "rule", "mask", "dataset", "revision", "fingerprint")
_CLIPPED = 0.1


def begin_contract(
    old: ActionContract | None, data: ActionContract, *, trained: bool, changes: Iterable[str] = ()
) -> tuple[ActionContract, list[str]]:
    """Return the new run's contract, and sentences on what becomes of the old one.

    What an action means is the data's. The statistics are the data's too after a start that was trained; a start that
    is only wrapped keeps the base's, for that is the scale in which the base knows actions.

    Args:
        old: of the checkpoint that is started from, if it has one.
        data: of the new run's data.
        trained: whether a stage has trained the checkpoint.
        changes: what may differ, as the recipe's ``start_changes`` lists it.

    Raises:
        ContractError: names each field that both know, that differs and that ``changes`` does not list.
    """
    if old is None:
        return data, []
    keeps_scale = not trained and STATISTICS not in changes
    found = old.differences(data, mine="the start", theirs="the data")
    for name in ("rule", "mask") if not trained else ():
        found.pop(name, None)  # they belong to the statistics, whichever are taken
    if refused := [name for name in found if name not in set(changes)]:
        declared = "" if "dimensions" in refused else f" If that is meant, say start_changes=[{','.join(found)}]."
        raise ContractError(
            f"The action contract of the start does not fit the data: {'; '.join(found[name] for name in refused)}. "
            f"What the model has learned would mean something else. Convert the data, or start from another "
            f"checkpoint.{declared}{old.renaming(data, found)}"
        )
    said = [f"The action contract changes as start_changes says: {'; '.join(found.values())}."] if found else []
    if not keeps_scale:
        return data, [*said, f"The statistics of actions are now those of {data.dataset or 'the data'}."]
    kept = replace(data, **{name: getattr(old, name) for name in _SCALE})
    return kept, [*said, _kept(kept, data)]


def _kept(kept: ActionContract, data: ActionContract) -> str:
    text = f"The base's statistics of {kept.dataset!r} are kept, and with them the scale in which it knows actions."
    far = _clipped(kept, data)
    if not far:
        return text
    return (
        f"{text} The data reach farther in {', '.join(far)}, and what lies beyond is clipped; "
        f"start_changes=[{STATISTICS}] takes the data's own."
    )


def _clipped(kept: ActionContract, data: ActionContract) -> list[str]:
    """Dimensions whose 1 % or 99 % quantile lies outside the kept bounds by more than a tenth of their span."""
    if kept.rule == "mean_std":
        return []
    low_A, high_A = kept.bounds
    beyond_A = np.maximum(low_A - data.statistics.q01, data.statistics.q99 - high_A)
    far_A = (beyond_A > _CLIPPED * (high_A - low_A)) & np.array(kept.mask)
    return [
        f"{name} ({low:.3g} to {high:.3g}, the data {one:.3g} to {two:.3g})"
        for name, low, high, one, two, far in zip(
            data.names, low_A, high_A, data.statistics.q01, data.statistics.q99, far_A, strict=True
        )
        if far
    ]
