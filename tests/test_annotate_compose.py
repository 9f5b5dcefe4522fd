"""The discrete video: its order is a permutation in which neighbours look alike, its chunks cover it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelvla_core.annotate.compose import SIDE, chunks, order, thumbnail

SHAPE = (SIDE, SIDE, 3)


def _scenes(count: int, seed: int = 0) -> np.ndarray:
    """Thumbnails of a dozen scenes, in each of which a few things vary."""
    rng = np.random.default_rng(seed)
    flat = int(np.prod(SHAPE))
    scenes, varied = rng.uniform(60, 190, (12, flat)), rng.normal(size=(6, flat)) * 12
    values = scenes[rng.integers(0, 12, count)] + np.tanh(rng.normal(size=(count, 6))) @ varied
    return np.clip(values, 0, 255).astype(np.uint8).reshape(count, *SHAPE)


def _step(thumbnails: np.ndarray, path: np.ndarray) -> float:
    """Root of the mean squared difference of neighbours."""
    ordered = thumbnails[path].reshape(len(path), -1).astype(float)
    return float(np.sqrt((np.diff(ordered, axis=0) ** 2).mean(1)).mean())


def _greedy(thumbnails: np.ndarray) -> np.ndarray:
    """Always the nearest of all that are left."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(float)
    left, path = list(range(1, len(flat))), [0]
    while left:
        place = int(np.argmin(((flat[left] - flat[path[-1]]) ** 2).sum(1)))
        path.append(left.pop(place))
    return np.array(path)


@given(arrays.arrays(np.uint8, st.integers(0, 40).map(lambda count: (count, *SHAPE))))
@settings(max_examples=30, deadline=None)
def test_an_order_holds_every_frame_once(thumbnails: np.ndarray) -> None:
    assert sorted(order(thumbnails)) == list(range(len(thumbnails)))


@pytest.mark.parametrize("count", [257, 1000, 5000])
def test_an_order_holds_every_frame_once_beyond_one_leaf(count: int) -> None:
    assert sorted(order(_scenes(count))) == list(range(count))


def test_frames_that_are_all_the_same_can_be_ordered() -> None:
    assert sorted(order(np.full((600, *SHAPE), 9, np.uint8))) == list(range(600))


def test_neighbours_look_alike() -> None:
    thumbnails = _scenes(1200)
    ordered = _step(thumbnails, order(thumbnails))
    assert ordered < 0.4 * _step(thumbnails, np.random.default_rng(1).permutation(len(thumbnails)))
    assert ordered < 1.25 * _step(thumbnails, _greedy(thumbnails))


def test_leaves_join_where_frames_look_alike() -> None:
    brightness = np.random.default_rng(2).permutation(np.repeat(np.arange(250), 8)).astype(np.uint8)
    thumbnails = np.broadcast_to(brightness[:, None, None, None], (len(brightness), *SHAPE))
    jumps = np.abs(np.diff(brightness[order(thumbnails)].astype(int)))
    assert np.median(jumps) == 0
    assert jumps.sum() < 3 * 250  # once through all brightnesses takes 249


def test_the_order_is_the_same_each_time() -> None:
    thumbnails = _scenes(3000)
    assert np.array_equal(order(thumbnails), order(thumbnails.copy()))


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    thumbnails = _scenes(16000)
    peaks = []
    for count in (8000, 16000):
        tracemalloc.start()
        order(thumbnails[:count])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@given(st.integers(0, 300), st.integers(1, 50), st.data())
def test_chunks_cover_every_place_and_share_their_overlap(count: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    found = chunks(count, size, overlap)
    assert sorted({place for chunk in found for place in chunk}) == list(range(count))
    assert all(0 < len(chunk) <= size for chunk in found)
    for before, after in pairwise(found):
        assert len(set(before) & set(after)) == overlap
        assert after.stop > before.stop


@pytest.mark.parametrize(("size", "overlap"), [(4, 4), (4, -1), (0, 0)])
def test_an_overlap_that_is_no_smaller_than_the_chunk_is_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap is"):
        chunks(10, size, overlap)


@given(arrays.arrays(np.uint8, SHAPE), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_thumbnail_is_the_mean_of_areas(raster: np.ndarray, scale: int) -> None:
    image = np.kron(raster, np.ones((scale, scale, 1), np.uint8))
    assert np.array_equal(thumbnail(image), raster)
