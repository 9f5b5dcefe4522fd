"""EdgeTAM through transformers, without asking the hub for anything, against transformers' own calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pixelvla_segment.large.config import EdgeTamConfig
from pixelvla_segment.large.sam2_hf import EdgeTam

from pixelvla_core.api import Box, Point


def test_a_batch_gives_what_the_package_gives_for_each_image(edgetam_folder, images):
    from transformers import EdgeTamModel, Sam2Processor

    segmenter = EdgeTam(EdgeTamConfig(model=str(edgetam_folder), device="cpu"))
    model, processor = (
        EdgeTamModel.from_pretrained(edgetam_folder).eval(),
        Sam2Processor.from_pretrained(edgetam_folder),
    )
    box = (0.2, 0.1, 0.7, 0.8)
    found = segmenter.segment_batch(images, [[[Box(*box)], [Point(0.4, 0.6)]] for _ in images])
    for image, segments in zip(images, found, strict=True):
        scale = np.array([image.shape[1], image.shape[0]] * 2)
        inputs = processor(images=image, input_boxes=[[(box * scale).tolist()]], return_tensors="pt")
        with torch.inference_mode():
            asked = {name: inputs[name] for name in ("pixel_values", "input_boxes")}
            own = model(**asked, multimask_output=False)
        mask = processor.post_process_masks(own.pred_masks, inputs["original_sizes"])[0][0, 0].numpy()
        assert (segments[0].mask != mask).mean() < 1e-3
        assert segments[0].score == pytest.approx(float(own.iou_scores.clamp(0, 1)), abs=1e-4)
        assert segments[1].mask.shape == image.shape[:2]
