"""The overlay: visual prompts drawn onto the pixels, no new tokens. The cheap, strong baseline of visual prompting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

from pixelvla_core.model.config import OverlayConfig
from pixelvla_core.prompts import Box, Line, Mask, Point, Prompt
from pixelvla_core.seam.batch import Sample
from pixelvla_core.types import BackboneSpec

# Colours that no robot scene has much of; what to touch is never the colour of what to avoid.
POSITIVE, NEGATIVE = (0, 255, 64), (255, 0, 32)
LINE, BOX, MASK = (255, 0, 255), (0, 255, 255), (255, 255, 0)


class OverlayPromptEncoder(nn.Module):
    """Draws prompts in the camera's own image, so that every crop and resize that follows moves them along.

    Attributes:
        paints: True; ``paint`` changes the pixels, and there are no tokens.
    """

    paints = True

    def __init__(self, config: OverlayConfig, spec: BackboneSpec) -> None:
        super().__init__()
        self.config = config

    def paint(self, sample: Sample) -> Sample:
        """Return the sample with its prompts drawn onto copies of its images."""
        marked = {camera: prompts for camera, prompts in sample.prompts.items() if prompts and camera in sample.images}
        if not marked:
            return sample
        painted = {camera: draw(sample.images[camera], prompts, self.config) for camera, prompts in marked.items()}
        return replace(sample, images={**sample.images, **painted})


def draw(image: np.ndarray, prompts: Sequence[Prompt], config: OverlayConfig) -> np.ndarray:
    """Return a copy of uint8[height, width, 3] with the prompts drawn in; masks first, so that points stay visible."""
    prompts = sorted(prompts, key=lambda prompt: not isinstance(prompt, Mask))
    for prompt in prompts:
        image = _draw_mask(image, prompt, config) if isinstance(prompt, Mask) else _draw_shape(image, prompt, config)
    return image


def _draw_shape(image: np.ndarray, prompt: Point | Line | Box, config: OverlayConfig) -> np.ndarray:
    canvas = Image.fromarray(image)
    pen, (width, height) = ImageDraw.Draw(canvas), canvas.size
    side = min(width, height)
    stroke = max(round(config.line * side), 1)
    match prompt:
        case Point(x, y, positive):
            radius = max(config.point * side, 1.0)
            colour = POSITIVE if positive else NEGATIVE
            pen.circle((x * width - 0.5, y * height - 0.5), radius, fill=colour, outline=(255, 255, 255))
        case Line(vertices):
            pixels = [(x * width - 0.5, y * height - 0.5) for x, y in vertices]
            pen.line(pixels, fill=LINE, width=stroke, joint="curve")
        case Box(x0, y0, x1, y1):
            right, bottom = max(x1 * width - 1, x0 * width), max(y1 * height - 1, y0 * height)
            pen.rectangle((x0 * width, y0 * height, right, bottom), outline=BOX, width=stroke)
    return np.asarray(canvas)


def _draw_mask(image: np.ndarray, mask: Mask, config: OverlayConfig) -> np.ndarray:
    height, width = image.shape[:2]
    region = _resized(mask.array, height, width)
    contour = region & ~_eroded(region, max(round(config.line * min(height, width)), 1))
    tinted = image.astype(np.float32)
    tinted[region] += config.tint * (np.array(MASK, np.float32) - tinted[region])
    tinted[contour] = MASK
    return tinted.round().astype(np.uint8)


def _resized(region: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool[height, width]: the mask at the image's size; a cell touched at all counts, so small masks stay visible."""
    if region.shape == (height, width):
        return region
    scaled = Image.fromarray(region.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.asarray(scaled) > 0


def _eroded(region: np.ndarray, times: int) -> np.ndarray:
    """The region without its outermost ``times`` pixels; the edge of the image counts as outside."""
    for _ in range(times):
        padded = np.pad(region, 1)
        region = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region
