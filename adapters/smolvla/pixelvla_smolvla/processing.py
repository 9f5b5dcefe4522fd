"""From samples to SmolVLA's tensors: pictures and words, as LeRobot's preprocessor and policy make them.

Shapes: B batch, L text length, S image side.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.api import Affine, Sample, UserError

TEXT_SPANS = ("bos", "instruction", "text", "state")
"""What the tokenizer puts first, the instruction, the newline and the padding behind it; then the state's token."""


def geometry(image: np.ndarray, side: int) -> Affine:
    """Where LeRobot's ``resize_with_pad`` puts an image: in the lower right corner, its sides rounded down to pixels.

    Raises:
        UserError: the image is so long that nothing of its short side would remain.
    """
    height, width = image.shape[:2]
    ratio = max(width / side, height / side)
    inner_width, inner_height = int(width / ratio), int(height / ratio)
    if not inner_width or not inner_height:
        raise UserError(
            f"An image is {width} x {height} pixels; made to fit into {side} x {side}, nothing of its shorter side is "
            "left. Crop it first."
        )
    return Affine(inner_width / side, inner_height / side, (side - inner_width) / side, (side - inner_height) / side)


def pixels(policy: Any, sample: Sample, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """Camera -> float[3, S, S] in [-1, 1], by LeRobot's own ``prepare_images``.

    Args:
        keys: Camera -> its key in the policy's batches, in the policy's order.
    """
    batch = {key: _unit(sample.images[camera]) for camera, key in keys.items()}
    images, _ = policy.prepare_images(batch)
    return {camera: images[index][0] for index, camera in enumerate(keys)}


def _unit(image: np.ndarray) -> Tensor:
    """float[1, 3, height, width] in [0, 1], as LeRobot's datasets give it."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def words(tokenizer: Any, instructions: Sequence[str], longest: int, padding: str) -> dict[str, Tensor]:
    """Instructions as ids, by LeRobot's rules: a newline behind, cut and padded on the right.

    Returns:
        "tokens" int[B, L], "token_mask" bool[B, L] and "token_span" int[B, L], an index into TEXT_SPANS.
    """
    lines = [text if text.endswith("\n") else f"{text}\n" for text in instructions]
    found = tokenizer(
        lines,
        max_length=longest,
        truncation=True,
        padding=padding,
        padding_side="right",
        return_tensors="pt",
        return_offsets_mapping=True,
    )
    begin_BL, end_BL = found["offset_mapping"].unbind(-1)
    mask_BL = found["attention_mask"].bool()
    _warn_if_cut(lines, end_BL, longest)
    words_B1 = torch.tensor([[len(line.rstrip("\n"))] for line in lines])
    inside_BL = mask_BL & (end_BL > begin_BL) & (begin_BL < words_B1)
    # A token of no characters in front is one that the tokenizer puts around the text.
    before_BL = mask_BL & (inside_BL.cumsum(1) == 0) & (end_BL == begin_BL)
    span_BL = torch.where(inside_BL, 1, torch.where(before_BL, 0, 2))
    return {"tokens": found["input_ids"], "token_mask": mask_BL, "token_span": span_BL}


def _warn_if_cut(lines: Sequence[str], end_BL: Tensor, longest: int) -> None:
    for line, end in zip(lines, end_BL.amax(1).tolist(), strict=True):
        if end < len(line.rstrip("\n")):
            warnings.warn(
                f"An instruction is longer than {longest} tokens and is cut, as in LeRobot, behind {line[:end]!r}.",
                stacklevel=4,
            )
