"""The tracker ``sam2`` against transformers' own session, which forgets nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pixelvla_segment.large.config import Sam2TrackerConfig
from pixelvla_segment.large.tracker import Sam2Tracker, _loaded

from pixelvla_core.api import UserError

STEPS = 20
"""More than the model looks back."""


@pytest.fixture
def video() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (50, 71, 3), dtype=np.uint8) for _ in range(STEPS)]


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((50, 71), bool)
    mask[10:30, 20:40] = True
    return mask


@pytest.fixture
def tracker(sam2_folder):
    return Sam2Tracker(Sam2TrackerConfig(model=str(sam2_folder), device="cpu"))


def test_masks_are_those_of_the_packages_session(tracker, video, mask):
    model, processor, _ = _loaded(tracker.config)
    session = processor.init_video_session(inference_device="cpu")
    session.video_height, session.video_width = mask.shape
    processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, input_masks=mask)
    tracker.start(video[0], mask)
    found = {}
    for number, image in enumerate(video):
        pixels = processor.video_processor(videos=[image[None]], return_tensors="pt").pixel_values_videos[0]
        with torch.inference_mode():
            own = model(inference_session=session, frame=pixels[0])
        if number:
            masks = processor.post_process_masks([own.pred_masks], [mask.shape], binarize=True)[0]
            found[number] = tracker.step(image)
            assert (found[number] != masks[0, 0].numpy()).mean() < 1e-3
            assert tracker.score == pytest.approx(float(own.object_score_logits.sigmoid()), abs=1e-4)
    assert len({mask.tobytes() for mask in found.values()}) > 1


def test_memory_stays_flat(tracker, video, mask):
    tracker.start(video[0], mask)
    held = []
    for image in video[1:]:
        tracker.step(image)
        held.append(len(tracker._session.output_dict_per_obj[0]["non_cond_frame_outputs"]))
    assert held[-1] == held[-4] <= 16
    assert not tracker._session.processed_frames


def test_trackers_share_the_model_but_not_the_object(tracker, sam2_folder, video, mask):
    other = Sam2Tracker(Sam2TrackerConfig(model=str(sam2_folder), device="cpu"))
    tracker.start(video[0], mask)
    other.start(video[1], ~mask)
    first = [tracker.step(image) for image in video[2:5]]
    [other.step(image) for image in video[2:5]]
    tracker.start(video[0], mask)
    again = [tracker.step(image) for image in video[2:5]]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_nothing_stays_nothing(tracker, video, mask):
    tracker.start(video[0], np.zeros_like(mask))
    assert not tracker.step(video[1]).any()


def test_sizes_must_agree(tracker, video, mask):
    with pytest.raises(UserError, match="equal heights"):
        tracker.start(video[0], mask[:-1])
