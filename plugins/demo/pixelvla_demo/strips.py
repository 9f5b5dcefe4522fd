"""Filmstrips: kept frames with the mask tinted and outlined and the prompts drawn in, as one inline PNG."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

GAP = 4
MASK, PROMPT, NEGATIVE = (255, 0, 200), (255, 255, 255), (255, 60, 60)


def strip(film: Path, frames: int = 6) -> str:
    """Return a film as a ``data:`` address of a PNG, at most ``frames`` pictures side by side.

    Args:
        film: Folder with images.png, masks.png and prompts.json, as an evaluation keeps it.
    """
    images, masks = np.array(Image.open(film / "images.png")), np.array(Image.open(film / "masks.png")) > 0
    prompts = json.loads((film / "prompts.json").read_text(encoding="utf-8"))
    height, width = images.shape[0], images.shape[1] // len(prompts)
    picks = np.linspace(0, len(prompts) - 1, min(frames, len(prompts))).round().astype(int)
    canvas = Image.new("RGBA", (len(picks) * (width + GAP) - GAP, height))
    for place, pick in enumerate(picks):
        columns = slice(pick * width, (pick + 1) * width)
        picture = tinted(images[:, columns], masks[:, columns])
        draw(picture, prompts[pick])
        canvas.paste(picture, (place * (width + GAP), 0))
    return inline(canvas)


def tinted(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Return an image, uint8[H, W, 3], with a mask's area tinted lightly and its edge drawn."""
    found = image.copy()
    inner = mask.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inner &= np.roll(mask, step, axis)
    found[inner] = (0.7 * image[inner] + 0.3 * np.array(MASK)).astype(np.uint8)
    found[mask & ~inner] = MASK
    return Image.fromarray(found)


def draw(picture: Image.Image, prompts: Sequence[Mapping[str, Any]]) -> None:
    """Draw prompts, as plain data, into a picture; a mask prompt is seen as the tinted area already."""
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    for prompt in prompts:
        if prompt["kind"] == "point":
            _dot(pen, prompt["x"] * width, prompt["y"] * height, PROMPT if prompt["positive"] else NEGATIVE)
        elif prompt["kind"] == "line":
            vertices = [(x * width, y * height) for x, y in prompt["vertices"]]
            pen.line(vertices, fill=(0, 0, 0), width=5)
            pen.line(vertices, fill=PROMPT, width=3)
        elif prompt["kind"] == "box":
            x0, y0, x1, y1 = (value * size for value, size in zip(prompt["box"], (width, height) * 2, strict=True))
            pen.rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), outline=(0, 0, 0))
            pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline=PROMPT)


def inline(picture: Image.Image) -> str:
    """Return a picture as a ``data:`` address."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(0, 0, 0))
    pen.ellipse((x - 3.5, y - 3.5, x + 3.5, y + 3.5), fill=colour)
