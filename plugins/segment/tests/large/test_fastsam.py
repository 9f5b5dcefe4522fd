"""Which of FastSAM's masks a prompt picks; the network itself needs the package ultralytics and weights."""

from __future__ import annotations

import numpy as np
import pytest
from pixelvla_segment.large.config import FastSamConfig
from pixelvla_segment.large.cues import cue_of
from pixelvla_segment.large.fastsam import FastSam, pick

from pixelvla_core.api import Box, Line, Mask, Point

TABLE, CUP, HANDLE = np.zeros((3, 40, 60), bool)
TABLE[5:, :] = True
CUP[10:30, 20:40] = True
HANDLE[15:25, 36:40] = True
MASKS, SCORES = np.stack([TABLE, CUP, HANDLE]), np.array([0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    ("prompts", "wanted"),
    [
        ([Point(0.4, 0.5)], 1),
        ([Point(38 / 60, 0.5)], 2),
        ([Point(0.05, 0.9)], 0),
        ([Point(38 / 60, 0.5), Point(0.4, 0.5)], 1),
        ([Point(0.4, 0.5), Point(0.05, 0.9, positive=False)], 1),
        ([Line(((0.36, 0.3), (0.36, 0.7)))], 1),
        ([Box(0.3, 0.2, 0.7, 0.8)], 1),
        ([Box(0.0, 0.1, 1.0, 1.0)], 0),
        ([Mask(HANDLE)], 2),
        ([Box(0.3, 0.2, 0.7, 0.8), Point(0.05, 0.9)], 0),
    ],
)
def test_the_mask_that_fits_is_picked(prompts, wanted):
    found = pick(cue_of(prompts, 5), MASKS, SCORES)
    np.testing.assert_array_equal(found.mask, MASKS[wanted])
    assert found.score == SCORES[wanted]


def test_nothing_fits():
    for masks in (MASKS, MASKS[:0]):
        found = pick(cue_of([Point(0.5, 0.01)], 5), masks, SCORES[: len(masks)])
        assert not found.mask.any()
        assert found.score == 0


def test_the_network_with_random_weights(tmp_path):
    ultralytics = pytest.importorskip("ultralytics")
    model = ultralytics.YOLO("yolov8n-seg.yaml")
    model.save(tmp_path / "FastSAM-s.pt")
    segmenter = FastSam(FastSamConfig(weights=str(tmp_path / "FastSAM-s.pt"), size=64, confidence=0.0, device="cpu"))
    image = np.random.default_rng(0).integers(0, 255, (50, 71, 3), dtype=np.uint8)
    found = segmenter.segment_batch([image, image], [[[Point(0.5, 0.5)]], [[Box(0.1, 0.1, 0.9, 0.9)]]])
    assert [segment.mask.shape for segments in found for segment in segments] == [(50, 71)] * 2
