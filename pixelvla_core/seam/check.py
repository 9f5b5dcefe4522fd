"""What a Sample must be, checked before an adapter reads it, so that a slip of the caller is told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pixelvla_core.errors import UserError
from pixelvla_core.prompts import KINDS
from pixelvla_core.seam.batch import Sample


def check_samples(samples: Any) -> None:
    """Refuse what is no list of samples, and samples whose parts have other types than ``Sample`` says.

    Raises:
        UserError: says what was found, and what is expected.
    """
    if not isinstance(samples, Sequence) or not all(isinstance(sample, Sample) for sample in samples):
        found = type(samples).__name__ if not isinstance(samples, Sequence) else _kinds(samples)
        raise UserError(f"Samples are expected in a list, found {found}. Give [sample], even for a single one.")
    if not samples:
        raise UserError("There are no samples: the list is empty. Give at least one.")
    for sample in samples:
        where = f"Sample {sample.key}" if sample.key else "A sample"
        _check_instruction(where, sample.instruction)
        _check_images(where, sample.images)
        _check_prompts(where, sample.prompts)


def _kinds(values: Sequence[Any]) -> str:
    return f"{type(values).__name__} of {', '.join(sorted({type(value).__name__ for value in values}))}"


def _check_instruction(where: str, instruction: Any) -> None:
    if not isinstance(instruction, str):
        raise UserError(f"{where} has the instruction {instruction!r}; expected text, which may be empty.")


def _check_images(where: str, images: Any) -> None:
    if not isinstance(images, Mapping):
        raise UserError(f"{where} has images of type {type(images).__name__}; expected camera -> image.")
    for camera, image in images.items():
        array = isinstance(image, np.ndarray)
        if not array or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            found = f"shape {image.shape} and type {image.dtype}" if array else f"type {type(image).__name__}"
            raise UserError(
                f"{where} has an image of camera {camera!r} with {found}; expected a NumPy array uint8[height, width, "
                "3], RGB."
            )


def _check_prompts(where: str, prompts: Any) -> None:
    if not isinstance(prompts, Mapping):
        raise UserError(f"{where} has prompts of type {type(prompts).__name__}; expected camera -> tuple of prompts.")
    for camera, given in prompts.items():
        if not isinstance(given, Sequence) or not all(isinstance(prompt, tuple(KINDS.values())) for prompt in given):
            raise UserError(
                f"{where} has the prompts {given!r} in camera {camera!r}; expected a tuple of Point, Line, Box and "
                "Mask, such as (Point(0.5, 0.5),), even for a single one."
            )
