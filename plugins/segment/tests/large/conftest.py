"""Models of the real architectures with a few hundred thousand random weights, saved as their packages save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

SIDE = 64
EDGETAM_SIDE, EDGETAM_WIDTH = 128, 64
WORDS = {100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
"""Places in the vocabulary that Grounding DINO counts on."""
NAMED = ["red", "blue", "cup", "robot", "gripper", "a", "the", "drawer"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(50, 71), (64, 33), (50, 71), (97, 128)]
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory) -> Path:
    """SAM 2 as transformers saves it."""
    from transformers import (
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
        Sam2VisionConfig,
    )
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    width = 128
    trunk = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads=1,
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=trunk,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
            fpn_hidden_size=width,
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=width, image_size=SIDE, mask_input_channels=4),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=width, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        image_size=SIDE,
        memory_attention_hidden_size=width,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[SIDE // 16, SIDE // 16],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=32,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam2_hf")
    model = _lively(Sam2VideoModel(config))
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data += 2  # the object is seen
    model.save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    image = Sam2ImageProcessor(size=side, mask_size={"height": SIDE // 4, "width": SIDE // 4})
    video = Sam2VideoVideoProcessor(size=side)
    Sam2VideoProcessor(image_processor=image, video_processor=video).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def edgetam_folder(tmp_path_factory) -> Path:
    """EdgeTAM as transformers saves it, small, with random weights."""
    from pixelvla_segment.large.sam2_hf import EdgeTam
    from transformers import EdgeTamConfig, EdgeTamVisionConfig, Sam2ImageProcessor, Sam2Processor, TimmWrapperConfig
    from transformers.models.edgetam.configuration_edgetam import EdgeTamMaskDecoderConfig, EdgeTamPromptEncoderConfig

    model_class = EdgeTam.model_class()
    trunk = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    config = EdgeTamConfig(
        vision_config=EdgeTamVisionConfig(
            backbone_config=TimmWrapperConfig(architecture="repvit_m0_9", model_args=trunk),
            backbone_channel_list=[384, 192, 96, 48],
            backbone_feature_sizes=[[EDGETAM_SIDE // stride] * 2 for stride in (4, 8, 16)],
            fpn_hidden_size=EDGETAM_WIDTH,
        ),
        prompt_encoder_config=EdgeTamPromptEncoderConfig(
            hidden_size=EDGETAM_WIDTH, image_size=EDGETAM_SIDE, mask_input_channels=4
        ),
        mask_decoder_config=EdgeTamMaskDecoderConfig(
            hidden_size=EDGETAM_WIDTH, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("edgetam")
    model_class(config).save_pretrained(folder)
    side, mask = ({"height": size, "width": size} for size in (EDGETAM_SIDE, EDGETAM_SIDE // 4))
    Sam2Processor(Sam2ImageProcessor(size=side, mask_size=mask)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sam2_package_folder(tmp_path_factory) -> Path:
    """SAM 2 as its authors publish it: weights with a description of the model, here small.yaml."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from pixelvla_segment.large.sam2 import sam2_package

    described = OmegaConf.load(Path(sam2_package().__path__[0]) / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml")
    small = {
        "image_size": SIDE,
        "image_encoder": {
            "trunk": {"embed_dim": 8, "stages": [1, 1, 2, 1], "global_att_blocks": [3], "window_spec": [4, 4, 4, 2]},
            "neck": {"backbone_channel_list": [64, 32, 16, 8]},
        },
        "memory_attention": {"num_layers": 1, "layer": {"dim_feedforward": 32}},
    }
    described = OmegaConf.merge(described, {"model": small})
    folder = tmp_path_factory.mktemp("sam2")
    OmegaConf.save(described, folder / "small.yaml")
    torch.manual_seed(0)
    model = _lively(instantiate(described.model, _recursive_=True))
    torch.save({"model": model.state_dict()}, folder / "small.pt")
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    """A tokeniser with a few words."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    words = [WORDS.get(place, f"[unused{place}]") for place in range(1100)]
    words[0] = "[PAD]"
    words[1 : 1 + len(NAMED)] = NAMED
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def grounding_dino_folder(tmp_path_factory, tokenizer_folder) -> Path:
    """Grounding DINO as transformers saves it."""
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32
        ),
        d_model=32,
        num_queries=20,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        **heads,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("grounding_dino")
    _lively(GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}),
        BertTokenizerFast.from_pretrained(tokenizer_folder),
    ).save_pretrained(folder)
    return folder


def _lively(model: torch.nn.Module) -> torch.nn.Module:
    """Make weights that were born as 0 random too, so that nothing is equal by chance."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or not parameter.any():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()
