"""The discrete video: frames of many episodes in an order in which neighbours look alike, in chunks that overlap.

Shapes: N frames, M of them in one part, F = 192 numbers of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

SIDE = 8
"""Of a thumbnail, in pixels."""
_LEAF = 256
"""Up to so many frames the nearest one is looked for among all of them."""
_BLOCK = 4096
"""Frames of which sums are taken at once, so that memory does not grow with their number."""
_ROUNDS = 50
"""Steps towards the direction of greatest spread; an imperfect one still halves the frames well."""
_STEPS = 1024
"""To the unit along a direction. Whole numbers make each projection exact."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return the area means of an image, uint8[H, W, 3], on a raster: uint8[SIDE, SIDE, 3]."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def order(thumbnails_N883: np.ndarray) -> np.ndarray:
    """Return a permutation int64[N] under which neighbouring thumbnails look alike.

    The frames are halved along their direction of greatest spread until few are left, which keeps the work at
    N log N. Within those, each is followed by the nearest one that is left, beginning next to where the last ones end.
    Sums, projections and distances are of whole numbers and therefore exact: the result depends on no thread count.

    Args:
        thumbnails_N883: uint8[N, SIDE, SIDE, 3]; N may be 0.
    """
    count = len(thumbnails_N883)
    pixels_NF = thumbnails_N883.reshape(count, SIDE * SIDE * 3)
    found = np.empty(count, np.int64)
    at, last_F = 0, np.zeros(SIDE * SIDE * 3, np.float32)
    for leaf_M in _leaves(pixels_NF, np.arange(count)):
        here_MF = pixels_NF[leaf_M].astype(np.float32)
        path_M = _walk(here_MF, last_F)
        found[at : at + len(leaf_M)] = leaf_M[path_M]
        at, last_F = at + len(leaf_M), here_MF[path_M[-1]]
    return found


def _leaves(pixels_NF: np.ndarray, members_M: np.ndarray, before_F: np.ndarray | None = None) -> list[np.ndarray]:
    """Split members in halves of like frames until each part is small; parts next to each other are alike.

    Of two halves the one that is nearer to ``before_F``, the mean of the part before, comes first.
    """
    if not len(members_M):
        return []
    if len(members_M) <= _LEAF:
        return [members_M]
    along_M = _spread(pixels_NF, members_M)
    ranked_M = members_M[np.argsort(along_M, kind="stable")]
    first_M, second_M = np.array_split(ranked_M, 2)
    if before_F is not None and _away(pixels_NF, second_M, before_F) < _away(pixels_NF, first_M, before_F):
        first_M, second_M = second_M, first_M
    leaves = _leaves(pixels_NF, first_M, before_F)
    return [*leaves, *_leaves(pixels_NF, second_M, _mean(pixels_NF, leaves[-1]))]


def _spread(pixels_NF: np.ndarray, members_M: np.ndarray) -> np.ndarray:
    """Project members on the direction along which they differ most, int64[M]."""
    direction_F = np.rint(_STEPS * _principal(pixels_NF, members_M))
    blocks = _blocks(pixels_NF, members_M)
    return np.concatenate([block_BF @ direction_F for block_BF in blocks]).astype(np.int64)


def _principal(pixels_NF: np.ndarray, members_M: np.ndarray) -> np.ndarray:
    """The direction of greatest spread, float64[F] of length 1, by power iteration from a fixed start."""
    size = pixels_NF.shape[1]
    products_FF, sum_F = np.zeros((size, size)), np.zeros(size)
    for block_BF in _blocks(pixels_NF, members_M):
        products_FF += block_BF.T @ block_BF
        sum_F += block_BF.sum(0)
    scatter_FF = products_FF - np.outer(sum_F, sum_F) / len(members_M)
    direction_F = scatter_FF[:, np.argmax(np.diag(scatter_FF))]
    for _ in range(_ROUNDS):
        length = np.linalg.norm(direction_F)
        if length == 0:
            return direction_F  # all members are the same: any order will do
        direction_F = scatter_FF @ (direction_F / length)
    return direction_F / max(float(np.linalg.norm(direction_F)), 1e-12)


def _blocks(pixels_NF: np.ndarray, members_M: np.ndarray) -> Iterator[np.ndarray]:
    """Members' pixels as float64, some at a time."""
    starts = range(0, len(members_M), _BLOCK)
    for start in starts:
        yield pixels_NF[members_M[start : start + _BLOCK]].astype(np.float64)


def _mean(pixels_NF: np.ndarray, members_M: np.ndarray) -> np.ndarray:
    return sum(block_BF.sum(0) for block_BF in _blocks(pixels_NF, members_M)) / len(members_M)


def _away(pixels_NF: np.ndarray, members_M: np.ndarray, place_F: np.ndarray) -> float:
    return float(np.linalg.norm(_mean(pixels_NF, members_M) - place_F))


def _walk(here_MF: np.ndarray, last_F: np.ndarray) -> np.ndarray:
    """Visit frames one after the other, always the nearest that is left; the first next to ``last_F``."""
    # 192 squares of bytes stay below 2**24: all distances are exact in float32.
    away_M = (here_MF * here_MF).sum(1)
    path_M = np.empty(len(here_MF), np.int64)
    for step in range(len(here_MF)):
        place = int(np.argmin(away_M - 2 * (here_MF @ last_F)))
        path_M[step], last_F = place, here_MF[place]
        away_M[place] = np.inf
    return path_M


def chunks(count: int, size: int, overlap: int) -> list[range]:
    """Return ranges that cover ``count`` places, each of at most ``size``, sharing ``overlap`` with the one before.

    Raises:
        ValueError: the overlap is not smaller than the size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap is {overlap}; expected at least 0 and less than size, {size}")
    if not count:
        return []
    starts = range(0, max(count - overlap, 1), size - overlap)
    return [range(start, min(start + size, count)) for start in starts]
