"""Pictures for the page: a frame with what is annotated on it, and outlines of masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pixelvla_core.annotations.schema import Annotation

WIDTH = 360
"""Of a tile's picture in pixels; the page shows it somewhat smaller."""
MASK, REGION, POINT, SHADE = (64, 224, 208), (255, 190, 60), (255, 70, 110), (10, 14, 20)
"""Colours, RGB; each line has a dark one below it, so that it shows on any ground."""


def jpeg(image: np.ndarray) -> bytes:
    """Encode uint8[H, W, 3], RGB."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def tile(image: np.ndarray, row: Annotation | None, region: Sequence[float] | None) -> np.ndarray:
    """Return the frame, enlarged, with the mask's outline, the region proposal and the points."""
    scale = WIDTH / image.shape[1]
    height = round(image.shape[0] * scale)
    canvas = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_CUBIC)
    if row and row.mask:
        mask = cv2.resize(row.mask.decode().astype(np.uint8), (WIDTH, height), interpolation=cv2.INTER_NEAREST)
        canvas = np.where(mask[..., None] > 0, (0.65 * canvas + 0.35 * np.array(MASK)).astype(np.uint8), canvas)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for colour, thickness in ((SHADE, 4), (MASK, 2)):
            cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)
    if region:
        corners = (np.array(region).reshape(2, 2) * [WIDTH, height]).round().astype(int)
        for colour, thickness in ((SHADE, 4), (REGION, 2)):
            cv2.rectangle(canvas, corners[0].tolist(), corners[1].tolist(), colour, thickness, cv2.LINE_AA)
    for point in row.points if row else ():
        centre = (round(point.x * WIDTH), round(point.y * height))
        for colour, radius in ((SHADE, 7), ((255, 255, 255), 6), (POINT if point.positive else SHADE, 4)):
            cv2.circle(canvas, centre, radius, colour, -1, cv2.LINE_AA)
    return canvas


def outlines(mask: np.ndarray) -> list[list[list[float]]]:
    """Return the outlines of bool[H, W] as polygons of [x, y] in [0, 1]."""
    scaled = cv2.resize(mask.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(scaled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
    size = np.array(scaled.shape[::-1])
    return [((contour[:, 0] + 0.5) / size).round(4).tolist() for contour in contours]
