"""What a Sample must be, checked before it is read, so that a slip of the caller is told in words.

Core calls ``check_samples``; adapters call ``check_cameras``, and ``check_image`` where they are given bare images.
"""

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
        check_image(image, f"{where} has an image of camera {camera!r} that")


def check_image(image: Any, what: str = "An image") -> None:
    """Refuse what is no image.

    Args:
        what: The subject of the message, which goes on with "is ...".

    Raises:
        UserError: it is not a NumPy array uint8[height, width, 3] with at least one pixel.
    """
    array = isinstance(image, np.ndarray)
    if array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape:
        return
    found = f"{image.dtype}{list(image.shape)}" if array else f"of type {type(image).__name__}"
    raise UserError(
        f"{what} is {found}; expected uint8[height, width, 3], a NumPy array, RGB. Convert it first (values in [0, 1] "
        "times 255, channels last)."
    )


def check_cameras(sample: Sample, cameras: Sequence[str]) -> None:
    """Refuse a sample that lacks one of the cameras a backbone reads.

    Raises:
        UserError: names the cameras that are there, and those that are read.
    """
    if any(camera not in sample.images for camera in cameras):
        found = ", ".join(sorted(sample.images)) or "no camera"
        raise UserError(
            f"Sample {sample.key or '(without a key)'} has images of {found}, but the backbone reads "
            f"{', '.join(cameras)}. Name the data's cameras in the backbone's option `cameras`."
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
