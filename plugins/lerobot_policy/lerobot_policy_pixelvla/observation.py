"""Between LeRobot's batches and pixelvla's samples. Visual prompts and masks travel as observation keys.

| key | tensor |
|---|---|
| observation.prompts.CAMERA.points | float[B, K, 3]: x, y, and 1 for "this" or 0 for "not this" |
| observation.prompts.CAMERA.boxes | float[B, K, 4]: x0, y0, x1, y1 |
| observation.prompts.CAMERA.lines | float[B, K, V, 2]: vertices |
| observation.prompts.CAMERA.masks | bool[B, K, height, width], mask prompts |
| observation.masks.CAMERA | bool[B, M, height, width], the pixel-aware masks |

Coordinates are in [0, 1] over the camera's image. NaN fills what a row has fewer of; a mask without a pixel is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.api import Box, DataError, Line, Mask, Point, Prompt, Sample

IMAGES, STATE, ACTION, PAD, TASK = "observation.images.", "observation.state", "action", "action_is_pad", "task"
PROMPTS, MASKS = "observation.prompts.", "observation.masks."


def to_samples(batch: Mapping[str, Any], cameras: Sequence[str]) -> list[Sample]:
    """One sample per row of a batch as LeRobot's preprocessor hands it out.

    Raises:
        DataError: a camera or the task is not in the batch.
    """
    images = {camera: _images(batch, camera) for camera in cameras}
    B = len(next(iter(images.values())))
    tasks = _tasks(batch, B)
    state, actions, pad = (_numpy(batch.get(name)) for name in (STATE, ACTION, PAD))
    return [
        Sample(
            images={camera: rows[i] for camera, rows in images.items()},
            instruction=tasks[i],
            state=None if state is None else state[i],
            prompts={camera: prompts for camera in cameras if (prompts := _prompts(batch, camera, i))},
            masks={camera: masks for camera in cameras if (masks := _masks(batch, camera, i)) is not None},
            actions=None if actions is None else actions[i],
            action_valid=None if pad is None else ~pad[i].astype(bool),
        )
        for i in range(B)
    ]


def to_observation(
    prompts: Mapping[str, Sequence[Prompt]], masks: Mapping[str, np.ndarray] | None = None
) -> dict[str, Tensor]:
    """The keys of one row, without a batch axis, for what a user marked.

    Args:
        prompts: Camera -> prompts. masks: Camera -> bool[M, height, width].
    """
    found: dict[str, Tensor] = {}
    for camera, given in prompts.items():
        kinds: dict[str, list] = {"points": [], "boxes": [], "lines": [], "masks": []}
        for prompt in given:
            match prompt:
                case Point(x, y, positive):
                    kinds["points"].append(torch.tensor([x, y, float(positive)]))
                case Box(x0, y0, x1, y1):
                    kinds["boxes"].append(torch.tensor([x0, y0, x1, y1]))
                case Line(vertices):
                    kinds["lines"].append(torch.tensor(vertices))
                case Mask(array):
                    kinds["masks"].append(torch.from_numpy(array))
        for name, tensors in kinds.items():
            if tensors:
                found[f"{PROMPTS}{camera}.{name}"] = _stacked(tensors)
    return {**found, **{f"{MASKS}{camera}": torch.from_numpy(array) for camera, array in (masks or {}).items()}}


def _stacked(tensors: list[Tensor]) -> Tensor:
    return (
        torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=float("nan"))
        if tensors[0].ndim == 2 and tensors[0].is_floating_point()
        else torch.stack(tensors)
    )


def _images(batch: Mapping[str, Any], camera: str) -> np.ndarray:
    """uint8[B, height, width, 3] from float[B, 3, height, width] in [0, 1]."""
    image = batch.get(f"{IMAGES}{camera}")
    if image is None:
        found = ", ".join(name.removeprefix(IMAGES) for name in batch if name.startswith(IMAGES)) or "none"
        raise DataError(
            f"The batch has the cameras {found}, but the checkpoint reads {camera!r}. Rename the camera with LeRobot's "
            "rename_map, or wrap the base with backbone.options.cameras."
        )
    return (image.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _tasks(batch: Mapping[str, Any], rows: int) -> list[str]:
    task = batch.get(TASK)
    if task is None:
        raise DataError("The batch has no task, so there is no instruction. Take a dataset whose episodes have one.")
    return [task] * rows if isinstance(task, str) else list(task)


def _numpy(value: Tensor | None) -> np.ndarray | None:
    return None if value is None else value.detach().cpu().numpy()


def _row(batch: Mapping[str, Any], name: str, i: int, axes: int) -> np.ndarray | None:
    value = _numpy(batch.get(name))
    if value is None:
        return None
    return value if value.ndim == axes else value[i]


def _prompts(batch: Mapping[str, Any], camera: str, i: int) -> tuple[Prompt, ...]:
    points, boxes, lines, masks = (
        _row(batch, f"{PROMPTS}{camera}.{name}", i, axes)
        for name, axes in (("points", 2), ("boxes", 2), ("lines", 3), ("masks", 3))
    )
    found: list[Prompt] = [Point(float(x), float(y), bool(p)) for x, y, p in _whole(points)]
    found += [Box(*map(float, box)) for box in _whole(boxes)]
    for line in () if lines is None else lines:
        vertices = tuple((float(x), float(y)) for x, y in _whole(line))
        found += [Line(vertices)] if vertices else []
    found += [Mask(mask.astype(bool)) for mask in (() if masks is None else masks) if mask.any()]
    return tuple(found)


def _whole(rows: np.ndarray | None) -> Sequence[np.ndarray]:
    """The rows without NaN."""
    return () if rows is None else [row for row in rows if not np.isnan(row).any()]


def _masks(batch: Mapping[str, Any], camera: str, i: int) -> np.ndarray | None:
    found = _row(batch, f"{MASKS}{camera}", i, 3)
    return None if found is None else found.astype(bool)
