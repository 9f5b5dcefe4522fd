"""Why a mask is thrown away. Each reason is one of a few words, so that they can be counted."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pixelvla_core.annotate.regions import share_inside
from pixelvla_core.prompts import Box
from pixelvla_core.recipe.schema import Filters

NO_CLOSING = "no closing frame"
CORRUPT = "corrupt"
NO_TARGET = "no target"
NO_GRIPPER = "no gripper"
NOTHING = "nothing detected"
EMPTY = "empty"
TINY = "tiny"
HUGE = "huge"
FRAGMENTED = "fragmented"
OUTSIDE = "outside the region"
LOW_SCORE = "low score"
CHANGED = "changed too fast"


def mask_reason(mask: np.ndarray, score: float, region: Box, filters: Filters) -> str:
    """Return why the mask on the first frame is thrown away, "" if it is kept.

    Args:
        mask: bool[H, W].
        score: of the detection that led to it.
        region: the region proposal.
        filters: the thresholds.
    """
    area = float(mask.mean())
    if not area:
        return EMPTY
    if score < filters.min_score:
        return LOW_SCORE
    if area < filters.min_area:
        return TINY
    if area > filters.max_area:
        return HUGE
    if whole(mask) < filters.min_whole:
        return FRAGMENTED
    return OUTSIDE if share_inside(mask, region) < filters.min_inside else ""


def whole(mask: np.ndarray) -> float:
    """Return which share of a mask's pixels, bool[H, W], is in its largest piece; the mask is not empty."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum())


def change_reason(areas: Sequence[int], filters: Filters) -> str:
    """Return why masks through time are thrown away, "" if they are kept.

    Args:
        areas: pixels of the mask on each frame; frames on which the object is hidden (0) are passed over.
        filters: the thresholds.
    """
    seen = np.array([area for area in areas if area], float)
    ratios = seen[1:] / seen[:-1]
    jumps = np.maximum(ratios, 1 / ratios) if len(ratios) else ratios
    return CHANGED if (jumps > filters.max_change).any() else ""
