"""Between LeRobot's batches and pixelvla's samples. Visual prompts and masks travel as observation keys.

| key | tensor |
|---|---|
| observation.prompts.CAMERA.points | float[B, K, 3]: x, y, and 1 for "this" or 0 for "not this" |
| observation.prompts.CAMERA.boxes | float[B, K, 4]: x0, y0, x1, y1 |
| observation.prompts.CAMERA.lines | float[B, K, V, 2]: vertices |
| observation.prompts.CAMERA.masks | bool[B, K, height, width], mask prompts |
| observation.masks.CAMERA | bool[B, M, height, width], the pixel-aware masks |

Coordinates are in [0, 1] over the camera's image. NaN fills what a row has fewer of; a mask without a pixel is none.
Shapes: B batch, K prompts, V vertices, M masks, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelvla_core.api import Box, DataError, Line, Mask, Point, Prompt, Sample
from pixelvla_core.errors import suggest

IMAGES, STATE, ACTION, PAD, TASK = "observation.images.", "observation.state", "action", "action_is_pad", "task"
PROMPTS, MASKS = "observation.prompts.", "observation.masks."
KINDS = {"points": ("K", 3), "boxes": ("K", 4), "lines": ("K", "V", 2), "masks": ("K", "height", "width")}
"""What a prompt's key ends with, and the axes of one row; a number must be met."""
SLACK = 0.1
"""What an image augmented by LeRobot may lie outside [0, 1]."""


def to_samples(batch: Mapping[str, Any], cameras: Sequence[str]) -> list[Sample]:
    """One sample per row of a batch as LeRobot's preprocessor hands it out.

    Raises:
        DataError: a camera or the task is not in the batch, or a key does not hold what it should.
    """
    _check_keys(batch, cameras)
    images = {camera: _images(batch, camera) for camera in cameras}
    B = len(next(iter(images.values())))
    for camera in cameras:
        _check_rows(f"{IMAGES}{camera}", images[camera], B)
    tasks = _tasks(batch, B)
    state = _rows(batch, STATE, B)
    actions, valid = _actions(batch, B)
    prompts = {camera: {kind: _marks(batch, camera, kind, B) for kind in KINDS} for camera in cameras}
    masks = {camera: _flags(batch, f"{MASKS}{camera}", ("M", "height", "width"), B) for camera in cameras}
    return [
        Sample(
            images={camera: rows[i] for camera, rows in images.items()},
            instruction=tasks[i],
            state=None if state is None else state[i],
            prompts={camera: found for camera, kinds in prompts.items() if (found := _prompts(kinds, i))},
            masks={camera: rows[i] for camera, rows in masks.items() if rows is not None},
            actions=None if actions is None else actions[i],
            action_valid=None if valid is None else valid[i],
        )
        for i in range(B)
    ]


def rows_of(batch: Mapping[str, Any], camera: str) -> int:
    """B of a batch that has this camera."""
    return len(_images(batch, camera))


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


def _check_keys(batch: Mapping[str, Any], cameras: Sequence[str]) -> None:
    """Refuse prompts and masks that nobody would read: of no known kind, or of a camera that is not there.

    A camera that is in the batch and that the checkpoint does not read may have them; its image is left alone as well.
    """
    present = {*cameras, *(name.removeprefix(IMAGES) for name in batch if name.startswith(IMAGES))}
    for name, value in batch.items():
        if value is None or not name.startswith((PROMPTS, MASKS)):
            continue
        camera, kind = name.removeprefix(MASKS), "masks"
        if name.startswith(PROMPTS):
            camera, _, kind = name.removeprefix(PROMPTS).rpartition(".")
        if kind not in KINDS:
            raise DataError(
                f"The batch has {name}, which is no kind of prompt.{suggest(kind, KINDS)} Expected "
                f"{PROMPTS}{camera or 'CAMERA'}. with {', '.join(KINDS)} behind it."
            )
        if camera not in present:
            raise DataError(
                f"The batch has {name}, but no camera {camera!r}, so nobody would read it.{suggest(camera, present)} "
                f"The checkpoint reads {', '.join(cameras)}; where rename_map renames a camera, it must rename this "
                "key too."
            )


def _images(batch: Mapping[str, Any], camera: str) -> np.ndarray:
    """uint8[B, height, width, 3] from float[B, 3, height, width] in [0, 1], or from eight bits as they are."""
    name = f"{IMAGES}{camera}"
    image = _tensor(batch, name)
    if image is None:
        found = ", ".join(name.removeprefix(IMAGES) for name in batch if name.startswith(IMAGES)) or "none"
        raise DataError(
            f"The batch has the cameras {found}, but the checkpoint reads {camera!r}. Rename the camera with LeRobot's "
            "rename_map, or wrap the base with backbone.options.cameras."
        )
    if image.ndim != 4 or image.shape[1] != 3:
        raise _unfit(name, image, "float[B, 3, height, width] in [0, 1]")
    if image.dtype == torch.uint8:
        return image.permute(0, 2, 3, 1).cpu().numpy()
    pixels = image.float()
    if pixels.numel() and not (pixels.min() >= -SLACK and pixels.max() <= 1 + SLACK):
        raise DataError(
            f"{name} has values from {pixels.min():g} to {pixels.max():g}; expected float[B, 3, height, width] in "
            "[0, 1], as LeRobot's datasets give it. Divide eight bits by 255, and leave images unnormalised."
        )
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _tasks(batch: Mapping[str, Any], rows: int) -> list[str]:
    task = batch.get(TASK)
    if task is None:
        raise DataError("The batch has no task, so there is no instruction. Take a dataset whose episodes have one.")
    found = [task] * rows if isinstance(task, str) else list(task)
    if len(found) != rows:
        raise DataError(f"The batch has rows: {rows} by its images, {len(found)} by its tasks. Give one task per row.")
    return found


def _actions(batch: Mapping[str, Any], B: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """float[B, H, A], and bool[B, H] where they are no padding."""
    actions, pad = _rows(batch, ACTION, B), _rows(batch, PAD, B)
    if actions is None:
        return None, None
    if actions.ndim != 3:
        raise _unfit(ACTION, actions, f"float[{B}, steps, values], which LeRobot makes by the policy's chunk_size")
    if not np.isfinite(actions).all():
        raise DataError(f"{ACTION} has values that are NaN or infinite. `pixelvla data lint` names the frames.")
    if pad is not None and pad.shape != actions.shape[:2]:
        raise _unfit(PAD, pad, f"bool{list(actions.shape[:2])}")
    return actions, None if pad is None else ~pad.astype(bool)


def _tensor(batch: Mapping[str, Any], name: str) -> Tensor | None:
    value = batch.get(name)
    if value is None:
        return None
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} is of type {type(value).__name__}; expected a tensor.") from error


def _numpy(batch: Mapping[str, Any], name: str) -> np.ndarray | None:
    tensor = _tensor(batch, name)
    if tensor is None:
        return None
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def _rows(batch: Mapping[str, Any], name: str, B: int) -> np.ndarray | None:
    """What has a row per sample, and values in it."""
    value = _numpy(batch, name)
    if value is not None:
        _check_rows(name, value, B)
    return value


def _check_rows(name: str, value: np.ndarray, B: int) -> None:
    if value.ndim < 2 or len(value) != B:
        raise _unfit(name, value, f"{B} rows, one for each image of the first camera")


def _unfit(name: str, value: Any, wanted: str) -> DataError:
    kind = str(value.dtype).removeprefix("torch.")
    return DataError(f"{name} is {kind}{list(value.shape)}; expected {wanted}.")


def _given(batch: Mapping[str, Any], name: str, axes: tuple[str | int, ...], B: int) -> np.ndarray | None:
    """A key's value with a row per sample; without a batch axis, it is every row's.

    Raises:
        DataError: it has other axes.
    """
    value = _numpy(batch, name)
    if value is None:
        return None
    every = value.ndim == len(axes)
    sizes = zip(reversed(axes), reversed(value.shape), strict=False)
    fits = every or (value.ndim == len(axes) + 1 and len(value) == B)
    if not fits or any(isinstance(axis, int) and axis != size for axis, size in sizes):
        shape = ", ".join(map(str, axes))
        raise _unfit(name, value, f"[{B}, {shape}], or [{shape}] for every row")
    return np.broadcast_to(value, (B, *value.shape)) if every else value


def _flags(batch: Mapping[str, Any], name: str, axes: tuple[str | int, ...], B: int) -> np.ndarray | None:
    """Masks, bool[B, ..., height, width]."""
    value = _given(batch, name, axes, B)
    if value is None or value.dtype == bool:
        return value
    if not ((value == 0) | (value == 1)).all():
        raise DataError(f"{name} is no mask: it has values other than 0 and 1. Threshold it first.")
    return value.astype(bool)


def _marks(batch: Mapping[str, Any], camera: str, kind: str, B: int) -> np.ndarray | None:
    """The prompts of one kind, with a row per sample.

    Raises:
        DataError: they have other axes, a label that is neither 0 nor 1, or coordinates of which some are NaN.
    """
    name, axes = f"{PROMPTS}{camera}.{kind}", KINDS[kind]
    if kind == "masks":
        return _flags(batch, name, axes, B)
    value = _given(batch, name, axes, B)
    if value is None:
        return None
    blank = np.isnan(value)
    if (blank.any(-1) != blank.all(-1)).any():
        raise DataError(f"{name} has coordinates of which only some are NaN. NaN throughout means that there is none.")
    if kind == "points" and not np.isin(value[..., 2], (0, 1)).all(where=~blank[..., 2]):
        raise DataError(f"{name} has labels other than 1 and 0; expected x, y, and 1 for 'this' or 0 for 'not this'.")
    return value


def _prompts(kinds: Mapping[str, np.ndarray | None], i: int) -> tuple[Prompt, ...]:
    """What row i has of each kind."""
    points, boxes, lines, masks = (() if rows is None else rows[i] for rows in kinds.values())
    found: list[Prompt] = [Point(float(x), float(y), bool(p)) for x, y, p in _whole(points)]
    found += [Box(*map(float, box)) for box in _whole(boxes)]
    for line in lines:
        vertices = tuple((float(x), float(y)) for x, y in _whole(line))
        found += [Line(vertices)] if vertices else []
    found += [Mask(mask) for mask in masks if mask.any()]
    return tuple(found)


def _whole(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows without NaN."""
    return [row for row in rows if not np.isnan(row).any()]
