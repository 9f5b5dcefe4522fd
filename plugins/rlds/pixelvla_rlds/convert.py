"""From a TFDS folder of RLDS episodes to a LeRobotDataset v3."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.errors import DataError
from pixelvla_core.files import atomic_folder, check_target
from pixelvla_rlds.layouts import Feature, Layout, choose, read_features
from pixelvla_rlds.parts import Done, Parts, parts_of
from pixelvla_rlds.shards import Episode, episodes_of, shards
from pixelvla_rlds.tfrecord import Value

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

Frame = dict[str, Any]
PART = 100
"""Episodes of a part, the most that an interruption costs."""


@dataclass(frozen=True)
class _Plan:
    features: Mapping[str, Feature]
    layout: Layout
    fps: int
    videos: bool


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
    part: int = PART,
) -> int:
    """Write a dataset, whole or not at all, and return the number of its episodes.

    What was converted before an error or a crash is kept beside ``out``, and the next call goes on from there.

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
        part: episodes that are written together.

    Raises:
        DataError: the folder is none, is damaged, or has none of the wanted features.
        UserError: ``out`` holds something, or another process writes it.
    """
    folder, out = Path(folder).absolute(), Path(out).absolute()
    features = read_features(folder)
    chosen = choose(features, layout, camera)
    rate = fps or chosen.fps
    if not rate:
        raise DataError(f"How many frames per second {folder} has is not known. Give --fps.")
    paths = shards(folder, split)
    check_target(out, "an empty folder")
    plan = _Plan(features, chosen, rate, videos)
    with parts_of(out, _source(paths, plan, episodes, part)) as parts:
        while parts.episodes != episodes:
            wanted = part if episodes is None else min(part, episodes - parts.episodes)
            at = (parts.done[-1].files, parts.done[-1].records) if parts.done else (0, 0)
            found = islice(episodes_of(paths, split, *at), wanted)
            first = next(found, None)
            if first is None:
                break
            _convert_part(parts, chain((first,), found), first, plan, done)
        if not parts.done:
            raise DataError(f"{folder} has no episode in its split {split!r}.")
        parts.join(out)
        return parts.episodes


def _source(paths: Sequence[Path], plan: _Plan, episodes: int | None, part: int) -> dict[str, Any]:
    """What decides the bytes of the parts, as JSON gives it back."""
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    chosen = {"layout": asdict(plan.layout), "fps": plan.fps, "videos": plan.videos}
    source = {"files": files, **chosen, "episodes": episodes, "part": part, "lerobot": version("lerobot")}
    return dict(json.loads(json.dumps(source)))


def _convert_part(
    parts: Parts, found: Iterator[Episode], first: Episode, plan: _Plan, done: Callable[[int], None]
) -> None:
    """Write the next part."""
    count, episode = 0, first
    with atomic_folder(parts.dataset(len(parts.done))) as partial:
        partial.rmdir()  # LeRobot makes it itself
        dataset = _create(partial, first, plan)
        try:
            for episode in found:
                _add(dataset, _frames(episode, plan))
                count += 1
                done(parts.episodes + count)
        except BaseException:
            # Its writers would write into the folder after it is removed; the first error is the one to tell.
            with suppress(Exception):
                dataset.finalize()
            raise
        dataset.finalize()
    parts.add(Done(count, episode.files, episode.records))


def _create(folder: Path, first: Episode, plan: _Plan) -> LeRobotDataset:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    layout = plan.layout
    image = next(_frames(first, plan))[_key(layout)]
    described: dict[str, dict[str, Any]] = {
        _key(layout): {
            "dtype": "video" if plan.videos else "image",
            "shape": image.shape,
            "names": ["height", "width", "channels"],
        },
        "action": _vector(layout.action_names),
    }
    if layout.state:
        described["observation.state"] = _vector(layout.state_names)
    return LeRobotDataset.create(
        "rlds/part", plan.fps, described, root=folder, use_videos=plan.videos, video_backend="pyav"
    )


def _key(layout: Layout) -> str:
    return f"observation.images.{layout.image.rpartition('/')[2]}"


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": list(names)}


def _add(dataset: LeRobotDataset, frames: Iterator[Frame]) -> None:
    for frame in frames:
        dataset.add_frame(frame)
    dataset.save_episode()


def _frames(episode: Episode, plan: _Plan) -> Iterator[Frame]:
    """Yield the frames of an episode as LeRobot takes them."""
    one, where, features, layout = episode.values, episode.where, plan.features, plan.layout
    images = _listed(one, layout.image, where)
    texts = _listed(one, layout.instruction, where)
    if len(texts) not in (1, len(images)):
        raise DataError(f"{where} has {len(images)} images, but {len(texts)} instructions. Download the file again.")
    actions = _stack(one, features, layout.action, len(images), where)
    states = _stack(one, features, layout.state, len(images), where) if layout.state else None
    task = bytes(texts[0]).decode(errors="replace")
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
