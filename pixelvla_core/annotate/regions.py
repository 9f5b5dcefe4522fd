"""From the gripper's mask to the region proposal: its minimal box, enlarged by a margin (section 4.2 of the paper)."""

from __future__ import annotations

import numpy as np

from pixelvla_core.annotations.derive import derive_box
from pixelvla_core.prompts import Box


def region_proposal(mask: np.ndarray, margin: float) -> Box:
    """Return the box around a gripper's mask with a margin on every side, within the image.

    Args:
        mask: bool[H, W], not empty.
        margin: as a fraction of the box's longer side, in pixels.
    """
    height, width = mask.shape
    box = derive_box(mask)
    grow = margin * max((box.x1 - box.x0) * width, (box.y1 - box.y0) * height)
    return Box(
        max(0.0, box.x0 - grow / width),
        max(0.0, box.y0 - grow / height),
        min(1.0, box.x1 + grow / width),
        min(1.0, box.y1 + grow / height),
    )


def share_inside(mask: np.ndarray, region: Box) -> float:
    """Return which share of a mask's pixels, bool[H, W], has its centre in the region; 0 for an empty mask."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0
    x, y = (columns + 0.5) / width, (rows + 0.5) / height
    inside = (x >= region.x0) & (x <= region.x1) & (y >= region.y0) & (y <= region.y1)
    return float(inside.mean())


def touches(box: Box, region: Box) -> bool:
    """Whether two boxes have an area in common."""
    return min(box.x1, region.x1) > max(box.x0, region.x0) and min(box.y1, region.y1) > max(box.y0, region.y0)


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """Return the overlap of two masks, bool[H, W] each; 1 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
