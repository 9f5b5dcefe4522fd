"""Statistics of actions per dimension, and OpenVLA's file format for them.

Shapes: N steps, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from pixelvla_core.errors import ContractError, suggest


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Per dimension, in physical units: mean, std (population), min, max, and the 1 % and 99 % quantiles."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]

    def __post_init__(self) -> None:
        for item in fields(self):
            values = tuple(float(value) for value in getattr(self, item.name))
            object.__setattr__(self, item.name, values)
            if len(values) != len(self.mean):
                raise ContractError(
                    f"Action statistics have {len(values)} values in {item.name!r} but {len(self.mean)} in 'mean'; "
                    "every statistic has one value per action dimension. Compute them again from the data."
                )
            if not np.isfinite(values).all():
                raise ContractError(
                    f"Action statistics have {item.name!r} = {list(values)}; every value must be finite. "
                    "Look for NaN or infinite actions with `pixelvla data lint`, then compute them again."
                )

    @property
    def dim(self) -> int:
        """Number of action dimensions A."""
        return len(self.mean)

    @classmethod
    def of(cls, actions_NA: np.ndarray) -> Statistics:
        """Compute the statistics of float[N, A] in float64, the way OpenVLA's data loader does."""
        if actions_NA.ndim != 2 or not len(actions_NA):
            raise ContractError(f"Statistics need actions of shape [steps, dimensions], found {actions_NA.shape}.")
        values_NA = actions_NA.astype(np.float64)
        return cls(
            mean=values_NA.mean(0),
            std=values_NA.std(0),
            min=values_NA.min(0),
            max=values_NA.max(0),
            q01=np.quantile(values_NA, 0.01, axis=0),
            q99=np.quantile(values_NA, 0.99, axis=0),
        )

    def to_json(self) -> dict[str, list[float]]:
        """Return lists by name, as OpenVLA writes them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float]]) -> Statistics:
        """Read what :meth:`to_json` wrote, or one ``"action"`` entry of OpenVLA's ``dataset_statistics.json``.

        Raises:
            ContractError: a statistic is missing.
        """
        names = [item.name for item in fields(cls)]
        if missing := [name for name in names if name not in data]:
            raise ContractError(
                f"Action statistics lack {', '.join(missing)}; found {', '.join(map(str, data)) or 'nothing'}. "
                f"Expected {', '.join(names)}, each with one value per action dimension."
            )
        return cls(**{name: tuple(data[name]) for name in names})


def pick(norm_stats: Mapping[str, Mapping], key: str | None) -> tuple[str, Mapping]:
    """Choose one dataset's entry from a base's statistics.

    Args:
        norm_stats: dataset name -> entry, as in OpenVLA's ``dataset_statistics.json`` or ``config.json["norm_stats"]``.
        key: the dataset's name; may be None only if there is a single one.

    Returns:
        The name and its ``"action"`` entry.

    Raises:
        ContractError: the name is unknown (with the nearest one), or is needed because there are several.
    """
    known = ", ".join(sorted(norm_stats)) or "none"
    if key is None and len(norm_stats) != 1:
        raise ContractError(
            f"The base model carries action statistics of {len(norm_stats)} datasets: {known}. "
            "Say which one your robot's actions follow; the wrong one gives actions of the wrong size without an error."
        )
    key = next(iter(norm_stats)) if key is None else key
    if key not in norm_stats:
        raise ContractError(
            f"The base model has no action statistics named {key!r}.{suggest(key, norm_stats)} Known: {known}. "
            "Name one of these, or take the statistics from your dataset."
        )
    entry = norm_stats[key]
    return key, entry.get("action", entry)
