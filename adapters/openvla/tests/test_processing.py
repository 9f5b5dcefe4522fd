"""Images and prompts: the official image processor's numbers, the geometry of what it does, and the prompt's ids."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pixelvla_openvla.config import ModelConfig
from pixelvla_openvla.processing import HALF, IMAGENET, ImageProcessor, PromptTokenizer, load_tokenizer, prompt_text

from pixelvla_core.api import CheckpointError, UserError

SIZES = st.integers(2, 90)


@pytest.mark.parametrize("resize", ["resize-naive", "letterbox"])
def test_images_are_processed_as_officially(reference, resize):
    processor = ImageProcessor(224, resize, (IMAGENET, HALF))
    made = processor(reference["image.uint8"].numpy())
    assert made.shape == (6, 224, 224)
    assert (made[:, ::8] - reference[f"image.{resize}"]).abs().max() <= 1e-6


def test_an_image_of_the_right_size_is_only_normalised(official, reference):
    made = torch.stack([official.images(image) for image in reference["in.images_uint8"].numpy()])
    assert (made - reference["in.pixel_values"]).abs().max() <= 1e-6


def test_a_pil_image_is_the_same_as_its_array(official, reference):
    array = reference["image.uint8"].numpy()
    assert torch.equal(official.images(array), official.images(Image.fromarray(array).convert("RGBA")))


@settings(max_examples=25, deadline=None)
@given(SIZES, SIZES, st.sampled_from(["resize-naive", "letterbox"]), st.data())
def test_geometry_says_where_a_pixel_goes(width, height, resize, data):
    """A white pixel is brightest where the affine map puts its centre."""
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    processor = ImageProcessor(180, resize, (HALF,))
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    bright = (processor(image)[0] + 1).double()
    if resize == "letterbox":
        plain = (processor(np.zeros_like(image))[0] + 1).double()
        bright = (bright - plain).clamp_min(0)
    weights = torch.where(bright > 0.7 * bright.max(), bright, 0)
    column, row = torch.meshgrid(torch.arange(180) + 0.5, torch.arange(180) + 0.5, indexing="xy")
    found = (float((weights * column).sum() / weights.sum()), float((weights * row).sum() / weights.sum()))
    wanted = processor.geometry(width, height)((x + 0.5) / width, (y + 0.5) / height)
    cells = 180 / min(width, height) / 2 + 1
    assert abs(found[0] / 180 - wanted[0]) * 180 <= cells
    assert abs(found[1] / 180 - wanted[1]) * 180 <= cells


def test_letterbox_geometry_is_exact_when_the_margin_is_odd():
    """Upstream pads by (41 - 30) // 2 = 5 on both sides: 40 of 41 columns, squashed back by the resize."""
    affine = ImageProcessor(56, "letterbox", (HALF,)).geometry(30, 41)
    assert affine(0.0, 0.0) == (5 / 40, 0.0)
    assert affine(1.0, 1.0) == (35 / 40, 1.0)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_rgb_image_is_refused(bad):
    with pytest.raises(UserError, match="expected uint8"):
        ImageProcessor(56, "resize-naive", (HALF,))(bad)


def test_an_unknown_way_to_resize_is_refused():
    with pytest.raises(CheckpointError, match="resize-crop"):
        ImageProcessor(56, "resize-crop", (HALF,))


def test_preprocessor_config_survives_saving(tmp_path, small):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(small.images.to_dict()))
    assert ImageProcessor.load(tmp_path, small.config) == small.images


def test_preprocessor_config_of_another_model_is_refused(checkpoint, small):
    with pytest.raises(CheckpointError, match="224"):
        ImageProcessor.load(checkpoint, small.config)


@given(st.text(max_size=20))
def test_prompt_is_lower_cased_and_says_where_the_instruction_is(words):
    text, begin, end = prompt_text(words)
    assert text == f"In: What action should the robot take to {words.lower()}?\nOut:"
    assert text[begin:end] == words.lower()
    vicuna, begin, end = prompt_text(words, "vicuna")
    assert vicuna[begin:end] == words.lower()
    assert vicuna.endswith("? ASSISTANT:")


def test_ids_begin_with_bos_end_with_the_empty_id_and_mark_the_instruction(small, word_tokenizer):
    ids, inside = small.tokenizer("Put a RED cube on the plate")
    assert ids[0] == 1
    assert ids[-1] == small.config.empty_token_id
    named = [word_tokenizer.id_to_token(i) for i, here in zip(ids, inside, strict=True) if here]
    assert named == ["put", "a", "red", "cube", "on", "the", "plate"]


def test_bos_is_not_doubled_if_the_tokenizer_adds_it(small, word_tokenizer):
    from tokenizers.processors import TemplateProcessing

    plain = small.tokenizer("open the drawer")
    word_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert small.tokenizer("open the drawer") == plain


def test_a_tokenizer_for_a_larger_vocabulary_is_refused(small, word_tokenizer):
    word_tokenizer.add_tokens([f"x{i}" for i in range(400)])
    with pytest.raises(CheckpointError, match="384"):
        PromptTokenizer(word_tokenizer, small.config)


def test_a_missing_tokenizer_names_the_files(official, checkpoint):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json nor tokenizer\.model"):
        _ = official.tokenizer


def test_a_tokenizer_beside_the_checkpoint_is_found(tmp_path, small, word_tokenizer):
    (tmp_path / "tokenizer").mkdir()
    word_tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    assert load_tokenizer(tmp_path, small.config)("open the plate") == small.tokenizer("open the plate")


def test_a_damaged_tokenizer_is_a_clear_error(tmp_path, small):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path, small.config)


def test_sentencepiece_tokenizers_work_too(tmp_path, official):
    """A Llama tokenizer as a bare tokenizer.model: the piece for a lone space stands for itself, BOS is id 1."""
    import sentencepiece

    lines = [prompt_text(words)[0].replace("\n", " ") for words in ("pick up the red cube", "open the drawer")] * 20
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    ids, inside = load_tokenizer(tmp_path, official.config)("open the drawer")
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert ids == [1, *own.encode(prompt_text("open the drawer")[0]), 29871]
    words = own.decode([i for i, here in zip(ids, inside, strict=True) if here])
    assert words == "open the drawer"


def test_small_models_need_an_empty_id_of_their_own(small_config):
    del small_config["empty_token_id"]
    with pytest.raises(CheckpointError, match="empty_token_id"):
        ModelConfig.from_dict(small_config)
