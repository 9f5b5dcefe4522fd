"""Reading videos: the pixels of LeRobot's own reader, in any order, with each file opened once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cups import FPS, LENGTHS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixelvla_lerobot.source import read_info
from pixelvla_lerobot.video import Videos

KEY = "observation.images.front"
wanted = st.integers(0, len(LENGTHS) - 1).flatmap(
    lambda episode: st.tuples(st.just(episode), st.lists(st.integers(0, LENGTHS[episode] - 1), min_size=1, max_size=6))
)


@pytest.fixture(scope="module")
def videos(recorded: dict[str, Path]) -> Videos:
    return Videos(recorded["videos"], read_info(recorded["videos"]), KEY)


@given(wanted)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_frames_in_any_order_are_those_of_lerobots_reader(videos: Videos, asked: tuple[int, list[int]]) -> None:
    from lerobot.datasets.video_utils import decode_video_frames

    episode, frames = asked
    times = [float(np.float32(frame / FPS)) for frame in frames]
    start = sum(LENGTHS[:episode]) / FPS
    theirs = decode_video_frames(videos.path(episode), [start + time for time in times], 1e-4, "pyav", True)
    for ours, their in zip(videos.frames(episode, times), theirs, strict=True):
        np.testing.assert_array_equal(ours, their.permute(1, 2, 0).numpy())


def test_a_file_is_opened_once(videos: Videos, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    fresh, opened, really = Videos(videos._root, read_info(videos._root), KEY), [], av.open
    monkeypatch.setattr(av, "open", lambda path: (opened.append(path), really(path))[1])
    for episode, length in enumerate(LENGTHS):
        for frame in (0, length - 1, 2):
            fresh.frames(episode, [frame / FPS])
    assert len(opened) == 1


def test_a_time_between_frames_is_refused(videos: Videos) -> None:
    with pytest.raises(ValueError, match="no frame at"):
        videos.frames(0, [0.5 / FPS])
    with pytest.raises((ValueError, OSError)):
        videos.frames(len(LENGTHS) - 1, [99.0])
    assert len(videos.frames(0, [0.0])) == 1, "it goes on after an error"
