"""The discrete video: frames of many episodes in an order in which neighbours look alike, in chunks that overlap."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 8
"""Of a thumbnail, in pixels."""
_LEAF = 256
"""Up to so many frames the nearest one is looked for among all of them."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return the area means of an image, uint8[H, W, 3], on a raster: uint8[SIDE, SIDE, 3]."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def order(thumbnails_N883: np.ndarray) -> np.ndarray:
    """Return a permutation int64[N] under which neighbouring thumbnails look alike.

    The frames are halved along their direction of greatest spread until few are left, which keeps the work at
    N log N. Within those, each is followed by the nearest one that is left, beginning next to where the last ones end.
    """
    features_NF = thumbnails_N883.reshape(len(thumbnails_N883), -1).astype(np.float32)
    found: list[int] = []
    for leaf in _leaves(features_NF, np.arange(len(features_NF))):
        found += _walk(features_NF, leaf, found[-1] if found else None)
    return np.array(found, np.int64)


def _leaves(features_NF: np.ndarray, members: np.ndarray) -> list[np.ndarray]:
    """Split members in halves of like frames until each part is small; parts next to each other are alike."""
    if len(members) <= _LEAF:
        return [members]
    along = features_NF[members] @ _principal(features_NF[members])
    ranked = members[np.argsort(along, kind="stable")]
    half = len(ranked) // 2
    return [*_leaves(features_NF, ranked[:half]), *_leaves(features_NF, ranked[half:])]


def _principal(features_MF: np.ndarray) -> np.ndarray:
    """The direction of greatest spread, its sign settled by its greatest entry."""
    centred = features_MF - features_MF.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    direction = vectors[:, -1]
    return direction * np.sign(direction[np.argmax(np.abs(direction))])


def _walk(features_NF: np.ndarray, members: np.ndarray, before: int | None) -> list[int]:
    """Visit members one after the other, always the nearest that is left."""
    if not len(members):
        return []
    here = features_NF[members]
    squares_M = (here * here).sum(1)
    left = np.ones(len(members), bool)
    last = here.mean(0) * 0 if before is None else features_NF[before]
    path = []
    for _ in members:
        distance = np.where(left, squares_M - 2 * here @ last, np.inf)
        place = int(np.argmin(distance))
        left[place] = False
        last = here[place]
        path.append(int(members[place]))
    return path


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
