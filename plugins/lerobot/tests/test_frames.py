"""The frame store: whole or not there, whatever happens while it is built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pixelvla_lerobot.frames import FrameStore, build

from pixelvla_core.errors import DataError

LENGTHS = [3, 5, 2, 4]
SIZE = (6, 8)


def frame(episode: int, index: int) -> np.ndarray:
    return np.full((*SIZE, 3), 10 * episode + index + 1, np.uint8)


def episode(number: int):
    for index in range(LENGTHS[number]):
        yield frame(number, index)


def expected() -> np.ndarray:
    return np.stack([frame(number, index) for number, length in enumerate(LENGTHS) for index in range(length)])


def broken(*numbers: int, error: type[BaseException] = DataError):
    def read(number: int):
        if number in numbers:
            raise error(f"episode {number} is broken")
        yield from episode(number)

    return read


def test_every_frame_is_in_its_place(tmp_path):
    store = build(tmp_path / "s", LENGTHS, SIZE, episode)
    np.testing.assert_array_equal(store.frames_NHW3, expected())
    assert store.corrupt == ()


def test_a_finished_store_is_opened_without_reading(tmp_path):
    build(tmp_path / "s", LENGTHS, SIZE, episode)
    store = build(tmp_path / "s", LENGTHS, SIZE, broken(0, 1, 2, 3))
    np.testing.assert_array_equal(store.frames_NHW3, expected())


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", LENGTHS, SIZE, broken(2, error=KeyboardInterrupt), workers=1)
    assert FrameStore.open(tmp_path / "s") is None
    store = build(tmp_path / "s", LENGTHS, SIZE, broken(0, 1))
    np.testing.assert_array_equal(store.frames_NHW3, expected())


def test_broken_episodes_stop_the_build_or_are_left_out(tmp_path):
    with pytest.raises(DataError, match="episode 1 is broken"):
        build(tmp_path / "s", LENGTHS, SIZE, broken(1))
    store = build(tmp_path / "s", LENGTHS, SIZE, broken(1), skip_corrupt=True)
    assert store.corrupt == (1,)
    np.testing.assert_array_equal(store.frames_NHW3[8:], expected()[8:])


def test_a_mended_episode_is_read_when_asked_for(tmp_path):
    build(tmp_path / "s", LENGTHS, SIZE, broken(1), skip_corrupt=True)
    store = build(tmp_path / "s", LENGTHS, SIZE, broken(0, 2, 3))
    assert store.corrupt == ()
    np.testing.assert_array_equal(store.frames_NHW3, expected())


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([frame(0, 0)] * 2, "2 images for 3 rows"),
        ([frame(0, 0)] * 4, "expected 3 frames"),
        ([np.zeros((9, 9, 3), np.uint8)], r"has shape \(9, 9, 3\)"),
    ],
)
def test_an_episode_of_another_length_or_size_is_refused(tmp_path, frames, words):
    with pytest.raises(DataError, match=words):
        build(tmp_path / "s", [3], SIZE, lambda number: iter(frames))


def test_a_truncated_store_is_noticed(tmp_path):
    build(tmp_path / "s", LENGTHS, SIZE, episode)
    with (tmp_path / "s" / "frames.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="Remove this folder"):
        build(tmp_path / "s", LENGTHS, SIZE, episode)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from pathlib import Path
from pixelvla_core.errors import DataError
from pixelvla_lerobot.frames import build
try:
    build(Path(sys.argv[1]), [100], (6, 8), lambda episode: iter(()))
except DataError as error:
    print(error)
"""


def test_frames_that_do_not_fit_on_the_disk_say_so_before_any_work(tmp_path):
    """A limit on the size of files stands in for a full disk: both refuse the space."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "s")], capture_output=True, text=True)
    assert "frames=direct" in done.stdout, done.stderr
    np.testing.assert_array_equal(build(tmp_path / "s", LENGTHS, SIZE, episode).frames_NHW3, expected())


SLOW = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
import test_frames as t
def read(number):
    print("reading", number, flush=True)
    for picture in t.episode(number):
        time.sleep({pause})
        yield picture
t.build(Path(sys.argv[1]), t.LENGTHS, t.SIZE, read, workers=1)
print("built", flush=True)
"""


def started(folder: Path, pause: float) -> subprocess.Popen:
    code = SLOW.format(here=str(Path(__file__).parent), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


def test_a_killed_build_is_made_whole_by_the_next(tmp_path):
    process = started(tmp_path / "s", 0.05)
    while process.stdout.readline().split() != ["reading", "2"]:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert FrameStore.open(tmp_path / "s") is None
    np.testing.assert_array_equal(build(tmp_path / "s", LENGTHS, SIZE, episode).frames_NHW3, expected())


def test_two_processes_build_once(tmp_path):
    first = started(tmp_path / "s", 0.05)
    first.stdout.readline()
    begun = time.monotonic()
    store = build(tmp_path / "s", LENGTHS, SIZE, broken(0, 1, 2, 3))
    assert time.monotonic() - begun > 0.1, "waited for the other"
    assert first.wait() == 0
    np.testing.assert_array_equal(store.frames_NHW3, expected())
