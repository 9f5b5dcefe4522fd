"""From samples to what LeRobot's pi0 reads: letterboxed images, padded text, padded state.

Shapes: B batch, L text length, H, W, C image height, width, channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.api import Affine, CheckpointError, UserError, check_image

PALIGEMMA = "google/paligemma-3b-pt-224"
TEXT_SPANS = ("bos", "instruction", "text")
"""Spans of the text: what the tokenizer puts first, the instruction, the newline and the padding behind it."""


def letterbox(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Where LeRobot's ``resize_with_pad_torch`` puts an image: its height, width, top and left, in pixels.

    The arithmetic is LeRobot's, rounding down included, so that not even a half pixel is lost.

    Raises:
        UserError: the image is so long that nothing of it would be left.
    """
    if (height, width) == (size, size):
        return size, size, 0, 0
    ratio = max(width / size, height / size)
    inner_height, inner_width = int(height / ratio), int(width / ratio)
    if inner_height < 1 or inner_width < 1:
        raise UserError(
            f"An image is {width} x {height} pixels; made to fit into {size} x {size}, nothing of its shorter side is "
            "left. Crop it first."
        )
    return inner_height, inner_width, (size - inner_height) // 2, (size - inner_width) // 2


def geometry(image: np.ndarray, size: int) -> Affine:
    """The map from an image, [H, W, C], to the square that the vision tower reads."""
    height, width, top, left = letterbox(image.shape[0], image.shape[1], size)
    return Affine(width / size, height / size, left / size, top / size)


def pixels(image: np.ndarray, size: int) -> Tensor:
    """An RGB image as LeRobot prepares it: float32[3, size, size] in [-1, 1], the padding black.

    Raises:
        UserError: the array is not uint8[H, W, 3].
    """
    from lerobot.policies.pi0 import modeling_pi0

    check_image(image)
    letterbox(image.shape[0], image.shape[1], size)
    found_BHWC = torch.from_numpy(np.ascontiguousarray(image))[None].float() / 255
    if image.shape[:2] != (size, size):
        found_BHWC = modeling_pi0.resize_with_pad_torch(found_BHWC, size, size)
    return (found_BHWC * 2.0 - 1.0)[0].permute(2, 0, 1)


class TextTokenizer:
    """Instructions as ids, by LeRobot's rules: a newline behind, cut and padded on the right to one length.

    Args:
        tokenizer: A fast tokenizer of transformers; offsets say which ids carry the instruction.
        length: L.
        vocabulary: Rows of the embedding.
    """

    def __init__(self, tokenizer: Any, *, length: int, vocabulary: int) -> None:
        self.tokenizer, self.length, self.vocabulary = tokenizer, length, vocabulary

    def __call__(self, instructions: Sequence[str]) -> dict[str, Tensor]:
        """Return "tokens" int[B, L], "token_mask" bool[B, L] and "token_span" int[B, L], an index into TEXT_SPANS.

        Raises:
            UserError: an id is beyond the embedding.
        """
        texts = [text if text.endswith("\n") else f"{text}\n" for text in instructions]
        found = self.tokenizer(
            texts,
            max_length=self.length,
            truncation=True,
            padding="max_length",
            padding_side="right",
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        tokens_BL, mask_BL = found["input_ids"], found["attention_mask"].bool()
        self._check(tokens_BL)
        begin_BL, end_BL = found["offset_mapping"].unbind(-1)
        self._warn_if_cut(texts, end_BL)
        words_B1 = torch.tensor([[len(text.rstrip("\n"))] for text in texts])
        inside_BL = mask_BL & (end_BL > begin_BL) & (begin_BL < words_B1)
        before_BL = mask_BL & (inside_BL.cumsum(1) == 0) & (end_BL == begin_BL)
        span_BL = torch.where(inside_BL, 1, torch.where(before_BL, 0, 2))
        return {"tokens": tokens_BL, "token_mask": mask_BL, "token_span": span_BL}

    def _check(self, tokens_BL: Tensor) -> None:
        if tokens_BL.max() >= self.vocabulary:
            raise UserError(
                f"The tokenizer gives the id {int(tokens_BL.max())}, but the model knows {self.vocabulary} words. Take "
                "the tokenizer that belongs to these weights (backbone.options.tokenizer)."
            )

    def _warn_if_cut(self, texts: Sequence[str], end_BL: Tensor) -> None:
        for text, end in zip(texts, end_BL.amax(1).tolist(), strict=True):
            if end < len(text.rstrip("\n")):
                warnings.warn(
                    f"An instruction is longer than {self.length} tokens and is cut, as in LeRobot, behind "
                    f"{text[:end]!r}.",
                    stacklevel=4,
                )


def load_tokenizer(folder: Path | None, given: str | None) -> Any:
    """The tokenizer at a path or hub id; by default the one in ``tokenizer/`` of the weights' folder, or PaliGemma's.

    Raises:
        CheckpointError: there is none, it is gated, or it cannot be read.
    """
    from transformers import AutoTokenizer

    beside = None if folder is None else folder / "tokenizer"
    source = given or (str(beside) if beside is not None and beside.is_dir() else PALIGEMMA)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # transformers raises what its many layers raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"The tokenizer {source} cannot be loaded ({first}). pi0 uses PaliGemma's, which is gated on the hub: "
            f"accept its licence and log in, or give a folder that has it: backbone.options.tokenizer=FOLDER."
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"The tokenizer {source} is not a fast one; give a folder with a tokenizer.json.")
    return tokenizer
