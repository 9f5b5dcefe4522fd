"""From samples to SmolVLA's tensors: pictures, words and the robot's state, as LeRobot's preprocessor makes them.

Shapes: B batch, L text length, X state width, S image side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.api import Affine, Sample, UserError

TEXT_SPANS = ("before", "instruction", "after", "state")


def letterbox(width: int, height: int, side: int) -> Affine:
    """Where LeRobot's ``resize_with_pad`` puts an image: in the lower right corner, its sides rounded down to pixels.

    Raises:
        UserError: the image is so long that nothing of its short side would remain.
    """
    ratio = max(width / side, height / side)
    inner_width, inner_height = int(width / ratio), int(height / ratio)
    if not inner_width or not inner_height:
        raise UserError(
            f"An image of {width} x {height} pixels cannot be scaled to {side} pixels: its short side would vanish. "
            "Crop it first."
        )
    return Affine(inner_width / side, inner_height / side, (side - inner_width) / side, (side - inner_height) / side)


def pictures(policy: Any, sample: Sample, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """Camera -> float[3, S, S] in [-1, 1], by LeRobot's own ``prepare_images``.

    Args:
        keys: Camera -> its key in the policy's batches, in the policy's order.
    """
    batch = {key: _unit(sample.images[camera]) for camera, key in keys.items()}
    images, _ = policy.prepare_images(batch)
    return {camera: images[index][0] for index, camera in enumerate(keys)}


def _unit(image: np.ndarray) -> Tensor:
    """float[1, 3, height, width] in [0, 1], as LeRobot's datasets give it."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def words(tokenizer: Any, instructions: Sequence[str], longest: int, padding: str) -> dict[str, Tensor]:
    """Ids int[B, L], their validity, and for each token the index of its span in TEXT_SPANS.

    As in LeRobot's preprocessor a line ends in a newline, and what exceeds ``longest`` tokens is cut off.
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
    start_BL, end_BL = found["offset_mapping"].unbind(-1)
    length_B1 = torch.tensor([[len(line.rstrip("\n"))] for line in lines])
    valid_BL = found["attention_mask"].bool()
    # A token of no characters is one that the tokenizer put around the text.
    part_BL = torch.where(start_BL < length_B1, TEXT_SPANS.index("instruction"), TEXT_SPANS.index("after"))
    part_BL[end_BL == 0] = TEXT_SPANS.index("before")
    part_BL[~valid_BL] = TEXT_SPANS.index("after")
    return {"ids": found["input_ids"], "text_valid": valid_BL, "part": part_BL}


def states(samples: Sequence[Sample], normalizer: Any, widest: int) -> Tensor:
    """Normalised and padded states, float[B, X].

    Args:
        normalizer: LeRobot's own normalizer step; None leaves states as they are.
        widest: X, the width that the base pads to.

    Raises:
        UserError: a sample has no state, or one that does not fit.
    """
    from lerobot.policies.common.vla_utils import pad_vector

    rows = [_state(sample, widest) for sample in samples]
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"The samples' states have {sorted({len(row) for row in rows})} values; expected one width.")
    return pad_vector(_normalized(torch.stack(rows), normalizer), widest)


def _state(sample: Sample, widest: int) -> Tensor:
    where = f"Sample {sample.key or '(without a key)'}"
    if sample.state is None:
        raise UserError(f"{where} has no state, but SmolVLA reads the robot's state. Give `state` in every sample.")
    state = torch.from_numpy(np.asarray(sample.state, np.float32).reshape(-1))
    if len(state) > widest:
        raise UserError(
            f"{where} has a state of {len(state)} values; this SmolVLA reads {widest} at most. Leave some out."
        )
    return state


def _normalized(state_BX: Tensor, normalizer: Any) -> Tensor:
    from lerobot.lerobot_types import TransitionKey
    from lerobot.utils.constants import OBS_STATE

    if normalizer is None:
        return state_BX
    mean_X = normalizer.state_dict().get(f"{OBS_STATE}.mean")
    if mean_X is not None and state_BX.shape[1] != len(mean_X):
        raise UserError(
            f"The states have {state_BX.shape[1]} values; the statistics beside the weights are for {len(mean_X)}. "
            "Give states as the base knows them."
        )
    return normalizer({TransitionKey.OBSERVATION: {OBS_STATE: state_BX}})[TransitionKey.OBSERVATION][OBS_STATE]
