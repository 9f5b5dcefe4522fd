"""Checks of sizes that every tracker makes."""

from __future__ import annotations

import numpy as np

from pixelvla_core.api import UserError


def check_fits(image: np.ndarray, mask: np.ndarray) -> None:
    """Raise UserError unless a mask, [H, W], is of the size of its image, [H, W, 3]."""
    if image.shape[:2] != mask.shape:
        raise UserError(f"The image is {image.shape[:2]} and its mask {mask.shape}; expected equal heights and widths.")
