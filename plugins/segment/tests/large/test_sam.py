"""SAM 2 from both packages against the packages' own calls, with every kind of prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pixelvla_segment.large.config import Sam2Config, Sam2HfConfig
from pixelvla_segment.large.cues import cue_of
from pixelvla_segment.large.sam import queries_of
from pixelvla_segment.large.sam2 import Sam2
from pixelvla_segment.large.sam2_hf import Sam2Hf

from pixelvla_core.annotate.models import BatchSegmenter
from pixelvla_core.api import Box, Line, Mask, Point, UserError

DISC = np.hypot(*np.mgrid[-20:20, -20:20]) < 12
PROMPTS = {
    "point": [Point(0.4, 0.6)],
    "points": [Point(0.4, 0.6), Point(0.9, 0.1, positive=False)],
    "line": [Line(((0.1, 0.2), (0.5, 0.5), (0.5, 0.9)))],
    "box": [Box(0.2, 0.1, 0.7, 0.8)],
    "point and box": [Point(0.4, 0.6), Box(0.2, 0.1, 0.7, 0.8)],
    "mask": [Mask(DISC)],
    "mask and point": [Mask(DISC), Point(0.5, 0.5)],
}


@pytest.fixture(scope="module", params=["sam2", "sam2_hf"])
def segmenter(request):
    if request.param == "sam2":
        folder = request.getfixturevalue("sam2_package_folder")
        return Sam2(Sam2Config(model=str(folder), architecture=str(folder / "small.yaml"), device="cpu"))
    return Sam2Hf(Sam2HfConfig(model=str(request.getfixturevalue("sam2_folder")), device="cpu"))


def logits_of(segmenter, images, prompts):
    """Logits and scores of one object on each image, in one call."""
    cues = [cue_of(prompts, 5) for _ in images]
    with torch.inference_mode():
        features = segmenter.network.encode(images)
        queries = queries_of(cues, segmenter.network)
        return segmenter.network.decode(features, queries, cues[0].ambiguous)


@pytest.mark.parametrize("kind", PROMPTS)
def test_package_gives_the_same_as_its_own_predictor(sam2_package_folder, images, kind):
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    folder = sam2_package_folder
    segmenter = Sam2(Sam2Config(model=str(folder), architecture=str(folder / "small.yaml"), device="cpu"))
    logits, scores = logits_of(segmenter, images, PROMPTS[kind])
    predictor = SAM2ImagePredictor(segmenter.network.predictor.model)
    predictor._bb_feat_sizes = [(16, 16), (8, 8), (4, 4)]
    cue = cue_of(PROMPTS[kind], 5)
    for number, image in enumerate(images):
        predictor.set_image(image)
        scale = np.array([image.shape[1], image.shape[0]])
        masks, own_scores, own_logits = predictor.predict(
            point_coords=cue.points * scale if len(cue.points) else None,
            point_labels=cue.labels if len(cue.points) else None,
            box=None if cue.box is None else cue.box * [*scale, *scale],
            mask_input=None if cue.mask is None else cue.logits(16)[None],
            multimask_output=cue.ambiguous,
        )
        np.testing.assert_allclose(logits[number].clamp(-32, 32), own_logits, atol=1e-4)
        np.testing.assert_allclose(scores[number], own_scores, atol=1e-4)
        mine = segmenter.segment_batch([image], [[PROMPTS[kind]]])[0][0]
        best = int(np.argmax(own_scores))
        assert (mine.mask != masks[best].astype(bool)).mean() < 1e-3
        assert mine.score == pytest.approx(float(own_scores[best]), abs=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in PROMPTS if "mask" not in kind])
def test_transformers_gives_the_same_as_its_own_processor(sam2_folder, images, kind):
    from transformers import Sam2Model, Sam2Processor

    segmenter = Sam2Hf(Sam2HfConfig(model=str(sam2_folder), device="cpu"))
    model, processor = Sam2Model.from_pretrained(sam2_folder).eval(), Sam2Processor.from_pretrained(sam2_folder)
    cue = cue_of(PROMPTS[kind], 5)
    for image in images:
        scale = np.array([image.shape[1], image.shape[0]])
        asked = {}
        if len(cue.points):
            asked["input_points"] = [[(cue.points * scale).tolist()]]
            asked["input_labels"] = [[cue.labels.tolist()]]
        if cue.box is not None:
            asked["input_boxes"] = [[(cue.box * [*scale, *scale]).tolist()]]
        inputs = processor(images=image, return_tensors="pt", **asked)
        with torch.inference_mode():
            own = model(**inputs, multimask_output=cue.ambiguous)
        logits, scores = logits_of(segmenter, [image], PROMPTS[kind])
        np.testing.assert_allclose(logits, own.pred_masks[0], atol=1e-4)
        np.testing.assert_allclose(scores, own.iou_scores[0], atol=1e-4)
        masks = processor.post_process_masks(own.pred_masks, inputs["original_sizes"])[0]
        best = int(own.iou_scores[0, 0].argmax())
        mine = segmenter.segment(image, PROMPTS[kind])
        assert (mine != masks[0, best].numpy()).mean() < 1e-3


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_batch_gives_what_single_images_give(segmenter, images, kind):
    logits, scores = logits_of(segmenter, images, PROMPTS[kind])
    for number, image in enumerate(images):
        alone, score = logits_of(segmenter, [image], PROMPTS[kind])
        torch.testing.assert_close(logits[number], alone[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(scores[number], score[0], atol=1e-4, rtol=0)


def test_many_objects_of_all_kinds_on_images_of_odd_sizes(segmenter, images):
    objects = [[*PROMPTS.values()], [PROMPTS["box"]], [], [PROMPTS["line"], PROMPTS["mask"]]]
    found = segmenter.segment_batch(images, objects)
    assert isinstance(segmenter, BatchSegmenter)
    assert [len(segments) for segments in found] == [len(these) for these in objects]
    for image, these, segments in zip(images, objects, found, strict=True):
        for prompts, segment in zip(these, segments, strict=True):
            assert segment.mask.shape == image.shape[:2]
            assert segment.mask.dtype == np.bool_
            assert 0 <= segment.score <= 1
            assert (segment.mask != segmenter.segment(image, prompts)).mean() < 1e-3


def test_prompts_matter(segmenter, images):
    masks = [segmenter.segment(images[0], prompts) for prompts in PROMPTS.values()]
    assert len({mask.tobytes() for mask in masks}) > len(masks) // 2


def test_nothing_marked_and_wrong_images_are_refused(segmenter, images):
    with pytest.raises(UserError, match="mark nothing"):
        segmenter.segment(images[0], [Point(0.5, 0.5, positive=False)])
    with pytest.raises(UserError, match="expected uint8"):
        segmenter.segment(images[0].astype(np.float32), PROMPTS["box"])


def test_identity_names_the_weights(segmenter):
    weights = segmenter.identity()["weights"]
    assert [len(digest) for digest in weights["sha256"].values()] == [64]
