"""From a TFDS folder of RLDS episodes to a LeRobotDataset v3."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_folder, check_target
from pixelvla_rlds.layouts import Feature, Layout, choose, read_features
from pixelvla_rlds.tfrecord import Value, example, records

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

Frame = dict[str, Any]


def convert(
    folder: Path,
    out: Path,
    *,
    layout: str = "auto",
    camera: str | None = None,
    fps: int | None = None,
    episodes: int | None = None,
    split: str = "train",
    videos: bool = True,
    done: Callable[[int], None] = lambda count: None,
) -> int:
    """Write a dataset, whole or not at all, and return the number of its episodes.

    Args:
        folder: one version of a TFDS dataset.
        out: the LeRobotDataset's folder; must not exist.
        layout: one of ``LAYOUTS``, or "auto".
        camera: the image feature to take.
        fps: frames per second; that of the layout if left out.
        episodes: how many to take; all if left out.
        split: which files to read.
        videos: as video, or else as pictures.
        done: called with the number of episodes so far.

    Raises:
        DataError: the folder is none, is damaged, or has none of the wanted features.
        UserError: ``out`` holds something.
    """
    folder, out = Path(folder), Path(out)
    features = read_features(folder)
    chosen = choose(features, layout, camera)
    rate = fps or chosen.fps
    if not rate:
        raise DataError(f"How many frames per second {folder} has is not known. Give --fps.")
    found = islice(_examples(folder, split), episodes)
    check_target(out, "an empty folder")
    first = next(found, None)
    if first is None:
        raise DataError(f"{folder} has no episode in its split {split!r}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_folder(out) as partial:
        partial.rmdir()  # LeRobot makes it itself
        dataset = _create(partial, out.name, first, features, chosen, rate, videos)
        try:
            for where, one in _chain(first, found):
                _add(dataset, _frames(one, features, chosen, where))
                count += 1
                done(count)
        except BaseException:
            # Its writers would write into the folder after it is removed; the first error is the one to tell.
            with suppress(Exception):
                dataset.finalize()
            raise
        dataset.finalize()
    return count


def _chain(first: tuple[str, Any], rest: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    yield first
    yield from rest


def _examples(folder: Path, split: str) -> Iterator[tuple[str, dict[str, Value]]]:
    """Yield every episode with the words that name it."""
    paths = sorted(folder.glob(f"*-{split}.tfrecord-*"))
    if not paths:
        raise DataError(f"{folder} has no files *-{split}.tfrecord-*. Name another --split, or download them.")
    _check_complete(paths)
    for path in paths:
        for number, payload in enumerate(records(path)):
            where = f"Record {number} of {path}"
            try:
                yield where, example(payload)
            except ValueError as error:
                raise DataError(f"{where} is damaged: {error}. Download the file again.") from error


def _check_complete(paths: Sequence[Path]) -> None:
    total = int(paths[0].name.rpartition("-of-")[2])
    if len(paths) != total:
        there = {int(path.name.rpartition("-of-")[0].rpartition("-")[2]) for path in paths}
        missing = sorted(set(range(total)) - there)
        raise DataError(
            f"{paths[0].parent} lacks {len(missing)} of {total} files, the first with number {missing[0]:05d}. "
            "Download them."
        )


def _create(
    folder: Path,
    name: str,
    first: tuple[str, dict[str, Value]],
    features: Mapping[str, Feature],
    layout: Layout,
    fps: int,
    videos: bool,
) -> LeRobotDataset:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    image = next(_frames(first[1], features, layout, first[0]))[_key(layout)]
    described: dict[str, dict[str, Any]] = {
        _key(layout): {
            "dtype": "video" if videos else "image",
            "shape": image.shape,
            "names": ["height", "width", "channels"],
        },
        "action": _vector(layout.action_names),
    }
    if layout.state:
        described["observation.state"] = _vector(layout.state_names)
    return LeRobotDataset.create(f"rlds/{name}", fps, described, root=folder, use_videos=videos, video_backend="pyav")


def _key(layout: Layout) -> str:
    return f"observation.images.{layout.image.rpartition('/')[2]}"


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _add(dataset: LeRobotDataset, frames: Iterator[Frame]) -> None:
    for frame in frames:
        dataset.add_frame(frame)
    dataset.save_episode()


def _frames(one: Mapping[str, Value], features: Mapping[str, Feature], layout: Layout, where: str) -> Iterator[Frame]:
    """Yield the frames of an episode as LeRobot takes them."""
    images = _listed(one, layout.image, where)
    texts = _listed(one, layout.instruction, where)
    if len(texts) not in (1, len(images)):
        raise DataError(f"{where} has {len(images)} images, but {len(texts)} instructions. Download the file again.")
    actions = _stack(one, features, layout.action, len(images), where)
    states = _stack(one, features, layout.state, len(images), where) if layout.state else None
    task = bytes(texts[0]).decode()
    for step, encoded in enumerate(images):
        frame: Frame = {_key(layout): _picture(encoded, f"Image {step} of {where}"), "action": actions[step]}
        if states is not None:
            frame["observation.state"] = states[step]
        yield {**frame, "task": task}


def _listed(one: Mapping[str, Value], name: str, where: str) -> Value:
    value = one.get(name, [])
    if not len(value) or not isinstance(value, list):
        raise DataError(f"{where} has nothing in {name}, which features.json lists. Download the dataset again.")
    return value


def _stack(
    one: Mapping[str, Value], features: Mapping[str, Feature], parts: Sequence[str], steps: int, where: str
) -> np.ndarray:
    """float32[T, D]: features side by side."""
    columns = []
    for name in parts:
        value, size = one.get(name, []), features[name].size
        if isinstance(value, list) or len(value) != steps * size:
            raise DataError(f"{where} has {len(value)} numbers in {name}; expected {size} for each of {steps} steps.")
        columns.append(np.asarray(value, np.float32).reshape(steps, size))
    return np.concatenate(columns, axis=1)


def _picture(encoded: bytes, where: str) -> np.ndarray:
    """Decode JPEG or PNG: uint8[H, W, 3]."""
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{where} cannot be decoded: {error}. Download the file again.") from error
