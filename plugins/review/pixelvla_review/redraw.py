"""From what a person drew on one frame to the rows of the whole episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pixelvla_core.annotations.derive import Inner, derive_box, derive_line, derive_point
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, REVIEW, Annotation
from pixelvla_core.api import Box, Point, Prompt
from pixelvla_core.errors import UserError
from pixelvla_review.parts import Parts

_SOURCE = "review"
_MOST = 100
"""Clicks of one redrawing."""


def prompts_of(data: dict[str, Any]) -> list[Prompt]:
    """Check what the page sends, {"points": [[x, y, positive], ...], "box": [x0, y0, x1, y1] or null}.

    Raises:
        UserError: it is something else, marks nothing, or leaves the image.
    """
    points, box = data.get("points") or [], data.get("box")
    if not isinstance(points, list) or len(points) > _MOST or not all(_numbers(point, 3) for point in points):
        raise UserError(f"points is {str(points)[:80]}; expected at most {_MOST} of [x, y, 1 or 0], all in [0, 1].")
    if box is not None and not (_numbers(box, 4) and box[0] < box[2] and box[1] < box[3]):
        raise UserError(f"box is {str(box)[:80]}; expected [x0, y0, x1, y1] in [0, 1] with x0 < x1 and y0 < y1.")
    prompts: list[Prompt] = [Point(x, y, positive > 0.5) for x, y, positive in points]
    if box is not None:
        prompts.append(Box(*box))
    if not any(not isinstance(prompt, Point) or prompt.positive for prompt in prompts):
        raise UserError("Nothing is marked: click on the object, or drag a box around it.")
    return prompts


def _numbers(values: Any, count: int) -> bool:
    """Whether these are that many numbers in [0, 1]."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
        for value in values
    )


def drawn_frame(rows: Sequence[Annotation]) -> int:
    """The first frame with a mask of the object to act on, else the first one with a row, else 0."""
    frames = [row.frame for row in rows if row.mask and not row.instance] or [row.frame for row in rows] or [0]
    return min(frames)


def redrawn(
    parts: Parts, episode: int, rows: Sequence[Annotation], target: str, mask: np.ndarray, *, through: bool
) -> list[Annotation]:
    """Return the episode's rows with the mask, bool[H, W], on its drawn frame, followed through the later ones.

    The frames that had rows get new ones, with ``through`` all frames; without a tracker those rows await review. Other
    objects stay as they are.
    """
    start = drawn_frame(rows)
    all_frames = range(parts.recording.lengths[episode])
    noted = all_frames if through else sorted({row.frame for row in rows if not row.instance})
    later = [frame for frame in noted if frame > start]
    camera = parts.recording.camera
    made = {start: _row(episode, start, camera, target, mask)}
    if parts.tracker and later:
        images = parts.recording.frames(episode, range(start, later[-1] + 1))
        tracker = parts.tracker()
        tracker.start(images[0], mask)
        masks = {frame: tracker.step(image) for frame, image in enumerate(images[1:], start + 1)}
        made |= {frame: _row(episode, frame, camera, target, masks[frame]) for frame in later}
    kept = [_await(row) if not row.instance else row for row in rows if row.instance or row.frame not in made]
    return [*kept, *made.values()]


def _await(row: Annotation) -> Annotation:
    return replace(row, status=REVIEW) if row.mask else row


def _row(episode: int, frame: int, camera: str, target: str, mask: np.ndarray) -> Annotation:
    if not mask.any():
        return Annotation(episode=episode, frame=frame, camera=camera, target=target, status=ABSENT, source=_SOURCE)
    rng, inner = np.random.default_rng([0, episode, frame]), Inner(mask)
    return Annotation(
        episode=episode,
        frame=frame,
        camera=camera,
        target=target,
        mask=Rle.encode(mask),
        box=derive_box(mask),
        points=(derive_point(mask, rng, inner),),
        lines=(derive_line(mask, rng, inner),),
        source=_SOURCE,
    )
