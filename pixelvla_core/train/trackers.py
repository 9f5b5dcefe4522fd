"""Where the curves go: Accelerate's trackers, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelvla_core.errors import RecipeError, suggest


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that Accelerate does not know or whose library is not installed; it would pass over them.

    Raises:
        RecipeError: names those that are there.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    available = sorted(map(str, get_available_trackers()))
    for name in names:
        if name not in known:
            raise RecipeError(
                f"log.trackers names {name!r}.{suggest(name, known)} Accelerate knows {', '.join(known)}."
            )
        if name not in available:
            raise RecipeError(
                f"log.trackers names {name!r}, whose library is not installed; installed are "
                f"{', '.join(available) or 'none'}. Install it: pip install {name}"
            )


def scalars(metrics: dict[str, Any], stage: str) -> dict[str, float]:
    """Metrics with names that trackers group by stage."""
    return {f"{stage}/{name}": float(value) for name, value in metrics.items()}
