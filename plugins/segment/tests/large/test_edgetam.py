"""EdgeTAM through transformers, without asking the hub for anything, against transformers' own calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pixelvla_segment.large.config import EdgeTamConfig
from pixelvla_segment.large.sam2_hf import EdgeTam

from pixelvla_core.api import Box, Point

SIDE, WIDTH = 128, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """EdgeTAM as transformers saves it, small, with random weights."""
    from transformers import EdgeTamConfig, EdgeTamVisionConfig, Sam2ImageProcessor, Sam2Processor, TimmWrapperConfig
    from transformers.models.edgetam.configuration_edgetam import EdgeTamMaskDecoderConfig, EdgeTamPromptEncoderConfig

    model_class = EdgeTam.model_class()
    trunk = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    config = EdgeTamConfig(
        vision_config=EdgeTamVisionConfig(
            backbone_config=TimmWrapperConfig(architecture="repvit_m0_9", model_args=trunk),
            backbone_channel_list=[384, 192, 96, 48],
            backbone_feature_sizes=[[SIDE // stride] * 2 for stride in (4, 8, 16)],
            fpn_hidden_size=WIDTH,
        ),
        prompt_encoder_config=EdgeTamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, mask_input_channels=4),
        mask_decoder_config=EdgeTamMaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("edgetam")
    model_class(config).save_pretrained(folder)
    side, mask = ({"height": size, "width": size} for size in (SIDE, SIDE // 4))
    Sam2Processor(Sam2ImageProcessor(size=side, mask_size=mask)).save_pretrained(folder)
    return folder


def test_a_batch_gives_what_the_package_gives_for_each_image(folder, images):
    from transformers import EdgeTamModel, Sam2Processor

    segmenter = EdgeTam(EdgeTamConfig(model=str(folder), device="cpu"))
    model, processor = EdgeTamModel.from_pretrained(folder).eval(), Sam2Processor.from_pretrained(folder)
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
