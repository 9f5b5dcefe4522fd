"""A contact sheet of an annotation: what the steps saw and decided, to be looked at before anybody trains on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pixelvla_core.annotate.work import Work, mask_of
from pixelvla_core.annotations.episodes import EpisodeNote
from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_file

NAME = "contact_sheet.png"
_EPISODES, _COLUMNS, _SIDE, _CAPTION = 24, 4, 160, 26
_GRIPPER, _REGION, _KEPT, _LOST = (255, 200, 0), (255, 255, 255), (0, 220, 60), (240, 40, 40)


def contact_sheet(work: Work, notes: Sequence[EpisodeNote], chunks: Sequence[int]) -> Path:
    """Draw some episodes, evenly spread: closing frame and first frame of each.

    Args:
        work: the annotation, finished. notes: its episodes. chunks: the tasks of the step "grippers".

    Returns:
        The picture's path.
    """
    places = np.unique(np.linspace(0, len(notes) - 1, min(_EPISODES, len(notes))).round().astype(int))
    shown = [notes[place] for place in places]
    grippers = _grippers(work, chunks, {note.episode for note in shown})
    tiles = [_tile(work, note, grippers) for note in shown]
    rows = -(-len(tiles) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * 2 * _SIDE, rows * (_SIDE + _CAPTION)), "black")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % _COLUMNS * 2 * _SIDE, place // _COLUMNS * (_SIDE + _CAPTION)))
    path = work.workspace.steps / NAME
    with atomic_file(path) as partial:
        sheet.save(partial, "PNG")
    return path


def _grippers(work: Work, chunks: Sequence[int], episodes: set[int]) -> dict[int, np.ndarray]:
    rows = (row for row in work.workspace.read_all("grippers", chunks) if row["episode"] in episodes)
    masks = ((row["episode"], mask_of(row)) for row in rows)
    return {episode: mask for episode, mask in masks if mask is not None}


def _tile(work: Work, note: EpisodeNote, grippers: Mapping[int, np.ndarray]) -> Image.Image:
    tile = Image.new("RGB", (2 * _SIDE, _SIDE + _CAPTION), "black")
    for place, picture in enumerate(_pictures(work, note, grippers)):
        tile.paste(picture, (place * _SIDE, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((4, _SIDE + 1), f"{note.episode}: {note.target or note.instruction}"[:52], fill="white")
    verdict = f"kept, {note.score:.2f}" if note.kept else note.reason[:52]
    draw.text((4, _SIDE + 12), verdict, fill=_KEPT if note.kept else _LOST)
    return tile


def _pictures(work: Work, note: EpisodeNote, grippers: Mapping[int, np.ndarray]) -> Iterator[Image.Image]:
    """The closing frame with gripper and region, the first frame with the object; black where there is none."""
    shard = next(key for key, shard in enumerate(work.shards) if note.episode in shard)
    objects = work.workspace.read("objects", shard, note.episode, note.episode)
    found = mask_of(objects[0]) if objects else None
    yield _frame(work, note, note.close_frame, grippers.get(note.episode), _GRIPPER)
    yield _frame(work, note, 0, found, _KEPT if note.kept else _LOST)


def _frame(
    work: Work, note: EpisodeNote, frame: int | None, mask: np.ndarray | None, colour: tuple[int, int, int]
) -> Image.Image:
    try:
        image = None if frame is None else work.recording.frames(note.episode, [frame])[0]
    except DataError:
        image = None
    if image is None:
        return Image.new("RGB", (_SIDE, _SIDE), "black")
    picture = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if mask is not None:
        small = cv2.resize(mask.astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, 1)
    if note.region is not None:
        left, top, right, bottom = (round(edge * (_SIDE - 1)) for edge in note.region)
        cv2.rectangle(picture, (left, top), (right, bottom), _REGION, 1)
    return Image.fromarray(picture)
