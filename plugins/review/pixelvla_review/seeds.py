"""Where the gripper is on a few closing frames: a layer for ``pixelvla annotate`` with the gripper finder ``video``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pixelvla_core.errors import DataError
from pixelvla_core.files import write_text

SEEDS = "seeds.yaml"


def read_seeds(folder: Path) -> list[dict[str, Any]]:
    """Return the seeds clicked so far.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / SEEDS
    if not path.exists():
        return []
    try:
        return list(yaml.safe_load(path.read_text(encoding="utf-8"))["annotate"]["gripper"]["options"]["seeds"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}. Remove it and click again.") from error


def write_seed(folder: Path, episode: int, x: float, y: float) -> list[dict[str, Any]]:
    """Save a click, which replaces an earlier one on the same episode, and return all seeds."""
    others = [seed for seed in read_seeds(folder) if seed["episode"] != episode]
    seeds = sorted(
        [*others, {"episode": episode, "point": [round(x, 4), round(y, 4)]}], key=lambda seed: seed["episode"]
    )
    layer = {"annotate": {"gripper": {"name": "video", "options": {"seeds": seeds}}}}
    write_text(folder / SEEDS, yaml.safe_dump(layer, sort_keys=False, default_flow_style=None))
    return seeds
