"""The gripper finder ``video`` on drawn grippers, with parts that look at colours and need no weights."""

from __future__ import annotations

import numpy as np
import pytest
from pixelvla_segment.follow import Follow
from pixelvla_segment.grabcut import GrabCut
from pixelvla_segment.large.config import Seed, VideoConfig
from pixelvla_segment.large.video import VideoGripper

from pixelvla_core.annotate.models import Clip, Detection, Models
from pixelvla_core.api import Box, DataError

SIZE = 96
COLOURS = ((200, 40, 40), (40, 200, 60))
"""Of two robots' grippers."""


def picture(x: int, y: int, robot: int = 0, side: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """An image with a gripper, and its exact mask."""
    rng = np.random.default_rng(x * 97 + y)
    image = rng.integers(110, 140, (SIZE, SIZE, 3)).astype(np.uint8) // (1 + robot)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    image[mask] = COLOURS[robot]
    return image, mask


class ColourDetector:
    """Finds the first robot's gripper only, by its colour; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, images, texts):
        self.asked += len(images)
        return [self._boxes(image) for image in images]

    def _boxes(self, image: np.ndarray) -> list[Detection]:
        rows, columns = np.nonzero((image == COLOURS[0]).all(-1))
        if not len(rows):
            return []
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIZE
        return [Detection(Box(*map(float, edges)), 0.8)]


class Scene:
    """Clips with exact masks."""

    def __init__(self, pictures) -> None:
        self.clips = [Clip(number, image) for number, (image, _) in enumerate(pictures)]
        self.masks = [mask for _, mask in pictures]
        self.detector = ColourDetector()
        self.fetched: list[int] = []

    def finder(self, **options) -> VideoGripper:
        return VideoGripper(VideoConfig(**options), Models(self.detector, GrabCut(), Follow, self.clip))

    def clip(self, episode: int) -> Clip:
        self.fetched.append(episode)
        return self.clips[episode]

    def overlaps(self, found, start: int = 0) -> list[float]:
        pairs = zip(found, self.masks[start:], strict=False)
        return [0.0 if one is None else (one.mask & two).sum() / (one.mask | two).sum() for one, two in pairs]


@pytest.fixture
def walk() -> Scene:
    return Scene([picture(20 + 3 * step, 30 + 2 * step) for step in range(12)])


def test_a_click_is_followed_through_all_clips(walk):
    finder = walk.finder(seeds=[Seed(5, point=[42 / SIZE, 46 / SIZE])], text="")
    assert min(walk.overlaps(finder.find(walk.clips))) > 0.8
    assert walk.detector.asked == 0


def test_a_box_is_a_seed_too(walk):
    box = [19 / SIZE, 29 / SIZE, 35 / SIZE, 45 / SIZE]
    assert min(walk.overlaps(walk.finder(seeds=[Seed(0, box=box)]).find(walk.clips))) > 0.8


def test_a_text_does_without_a_seed(walk):
    found = walk.finder().find(walk.clips)
    assert min(walk.overlaps(found)) > 0.8
    assert found[0].score == pytest.approx(0.8)
    assert walk.detector.asked == 1


def test_chunks_do_not_depend_on_each_other(walk):
    seeds = [Seed(5, point=[42 / SIZE, 46 / SIZE])]
    finder = walk.finder(seeds=seeds)
    finder.find(walk.clips[:6])
    after = finder.find(walk.clips[4:])
    alone = walk.finder(seeds=seeds).find(walk.clips[4:])
    for one, other in zip(after, alone, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_another_robot_is_found_from_its_own_seed():
    pictures = [picture(20 + 2 * step, 30, robot=int(step >= 5)) for step in range(10)]
    scene = Scene(pictures)
    seeds = [Seed(0, point=[26 / SIZE, 36 / SIZE]), Seed(9, point=[44 / SIZE, 36 / SIZE])]
    assert min(scene.overlaps(scene.finder(seeds=seeds, text="").find(scene.clips))) > 0.8


def test_what_leaps_is_found_again_by_the_detector():
    scene = Scene([picture(5, 5), picture(8, 6), picture(78, 78), picture(76, 75)])
    found = scene.finder(seeds=[Seed(0, point=[11 / SIZE, 11 / SIZE])]).find(scene.clips)
    assert min(scene.overlaps(found)) > 0.8
    assert scene.detector.asked == 1


def test_a_lost_gripper_is_none_and_those_after_it_are_found():
    empty = np.full((SIZE, SIZE, 3), 120, np.uint8), np.zeros((SIZE, SIZE), bool)
    scene = Scene([picture(20, 30), empty, picture(24, 33)])
    found = scene.finder(seeds=[Seed(0, point=[26 / SIZE, 36 / SIZE])]).find(scene.clips)
    assert found[1] is None
    overlaps = scene.overlaps(found)
    assert min(overlaps[0], overlaps[2]) > 0.8


def test_without_seeds_and_hits_the_error_asks_for_a_seed():
    scene = Scene([picture(20, 30, robot=1)])
    with pytest.raises(DataError, match=r"Give a seed.*episode: 0"):
        scene.finder().find(scene.clips)
    assert scene.finder().find([]) == []


def test_a_seed_with_too_large_a_mask_is_refused(walk):
    finder = walk.finder(seeds=[Seed(0, point=[26 / SIZE, 36 / SIZE])], largest=0.01)
    with pytest.raises(DataError, match="The seed in episode 0"):
        finder.find(walk.clips)
