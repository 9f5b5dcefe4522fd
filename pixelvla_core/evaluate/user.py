"""The oracle user: it knows where the target is and marks it on the first observation, as a person would."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.evaluate.records import Job, Record
from pixelvla_core.geometry import Affine
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt

KNOWN = frozenset(field.name for cls in (Job, Record) for field in fields(cls))
"""What a record holds by itself."""


def generator(job: Job) -> np.random.Generator:
    """Return the user's random numbers for one episode: the same for every model, and for every prompt of its own."""
    words = [zlib.crc32(text.encode()) for text in (job.task, job.split, job.prompt)]
    return np.random.default_rng(np.random.SeedSequence([job.seed, *words]))


def give(kind: str, mask: np.ndarray, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Return the prompts with which a user marks the target.

    Args:
        kind: "none", "point", "line", "box", "mask", or a mixture such as "point+box".
        mask: The target's visible pixels, bool[H, W]. Nothing can be marked if there are none.
        rng: Where on the target.
    """
    if kind == "none" or not mask.any():
        return ()
    return tuple(derive_prompt(mask, name, rng) for name in kind.split("+"))


def mask_given(prompts: tuple[Prompt, ...]) -> np.ndarray | None:
    """Return the mask if the user drew one: it is the pixel-aware mask as it stands."""
    return next((prompt.array for prompt in prompts if isinstance(prompt, Mask)), None)


def follow(prompts: tuple[Prompt, ...], first: np.ndarray, now: np.ndarray) -> tuple[Prompt, ...]:
    """Carry the prompts of the first image along with the tracked mask.

    The motion is that of the mask's centre: points, lines and boxes shift with it, within the image; a mask prompt is
    replaced by the tracked mask. With the tracker ``hold`` nothing moves.

    Args:
        first: Mask on the first image, bool[H, W].
        now: Mask on the present image, bool[H, W], not empty.
    """
    if now is first or not first.any():
        return prompts
    (x0, y0), (x1, y1) = _centre(first), _centre(now)
    shift = Affine(shift_x=x1 - x0, shift_y=y1 - y0)
    return tuple(_moved(prompt, shift, now) for prompt in prompts)


def to_plain(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as plain data for JSON; of a mask only the bounding box and its area, both as fractions."""
    if isinstance(prompt, Point):
        return {"kind": "point", "x": prompt.x, "y": prompt.y, "positive": prompt.positive}
    if isinstance(prompt, Line):
        return {"kind": "line", "vertices": [list(vertex) for vertex in prompt.vertices]}
    if isinstance(prompt, Box):
        return {"kind": "box", "box": [prompt.x0, prompt.y0, prompt.x1, prompt.y1]}
    height, width = prompt.array.shape
    rows, columns = np.nonzero(prompt.array)
    box = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    return {"kind": "mask", "box": [float(value) for value in box], "area": float(prompt.array.mean())}


def plain_facts(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts, numbers and truth values of an environment's info that a record does not hold anyway."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {key: value for key, value in plain.items() if isinstance(value, str | int | float) and key not in KNOWN}


def _centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def _moved(prompt: Prompt, shift: Affine, now: np.ndarray) -> Prompt:
    if isinstance(prompt, Mask):
        return Mask(now)
    if isinstance(prompt, Point):
        x, y = shift(prompt.x, prompt.y)
        return Point(float(np.clip(x, 0, 1)), float(np.clip(y, 0, 1)), prompt.positive)
    if isinstance(prompt, Line):
        shift = _within(shift, [x for x, _ in prompt.vertices], [y for _, y in prompt.vertices])
        return Line(tuple(_inside(shift(x, y)) for x, y in prompt.vertices))
    shift = _within(shift, [prompt.x0, prompt.x1], [prompt.y0, prompt.y1])
    return Box(*_inside(shift(prompt.x0, prompt.y0)), *_inside(shift(prompt.x1, prompt.y1)))


def _within(shift: Affine, xs: list[float], ys: list[float]) -> Affine:
    """Shorten a shift so that what it moves keeps its shape and stays in the image."""
    return Affine(
        shift_x=float(np.clip(shift.shift_x, -min(xs), 1 - max(xs))),
        shift_y=float(np.clip(shift.shift_y, -min(ys), 1 - max(ys))),
    )


def _inside(point: tuple[float, float]) -> tuple[float, float]:
    """Undo the rounding by which a coordinate may leave [0, 1]."""
    return min(max(point[0], 0.0), 1.0), min(max(point[1], 0.0), 1.0)
