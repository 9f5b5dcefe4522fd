"""Record demonstrations as a LeRobotDataset v3, with the exact masks beside it.

Episodes are simulated in worker processes and written by one. Pictures are stored as PNG inside the parquet files
rather than as video: `bench/tabletop_record.py` has the measurement behind that choice.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelvla_core.api import UserError, orderly_termination, serve_parent
from pixelvla_core.files import full_disk_is_user_error, locked

from . import spec
from .demonstrate import Demonstration, Job, demonstrate

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

IMAGE_KEY = f"observation.images.{spec.CAMERA}"
PNG_END = b"IEND\xaeB`\x82"
"""The last bytes of every whole PNG."""
WHOLE = "whole"
"""This file in the workshop says that what lies there is finished and only has to be moved."""


@dataclass(frozen=True)
class Recorded:
    """What a recording produced: the dataset's folder, the masks' file, and the numbers of what is in them."""

    folder: Path
    masks: Path
    episodes: int
    frames: int
    failed: int


def record(
    out: str | Path,
    episodes: int,
    tasks: Sequence[str] = spec.TASKS,
    split: str = "train",
    seed: int = 0,
    image_size: int = spec.IMAGE_SIZE,
    workers: int = 2,
    noise: float = 0.0,
    axis: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Recorded:
    """Record successful demonstrations into a new folder.

    The result depends on the arguments alone, not on ``workers`` or timing: episode after episode takes the next
    seed and the next task in turn, and one that fails is left out.

    Args:
        out: the dataset's folder; the masks go to ``OUT.masks.jsonl`` beside it. Neither may exist.
        episodes: how many to keep.
        noise: how strongly the execution is disturbed, see `demonstrate.disturbed`; 0.3 is a good value.
        progress: called now and then with the episodes and frames kept and the episodes left out.

    Raises:
        UserError: the folder or the masks' file exists, another process records into it, the disk is full, or an
            argument makes no sense.
    """
    out = Path(out)
    _check(episodes, workers, noise)
    jobs = (
        Job(task, split, axis, seed + index, image_size, noise) for index, task in enumerate(itertools.cycle(tasks))
    )
    frames = failed = kept = 0
    with (
        full_disk_is_user_error(out, "Nothing is kept of this recording.", "record again"),
        orderly_termination(),
        _staged(out) as staged,
        closing(_played(jobs, workers)) as played,
        _writing(staged, image_size) as add,
    ):
        for demonstration in played:
            if not demonstration.success:
                failed += 1
                _check_failures(failed, kept)
                continue
            add(demonstration)
            kept, frames = kept + 1, frames + len(demonstration.actions)
            if progress and (kept % 50 == 0 or kept == episodes):
                progress(kept, frames, failed)
            if kept == episodes:
                break
    return Recorded(out, _masks_path(out), kept, frames, failed)


def masks_row(episode: int, demonstration: Demonstration) -> dict[str, Any]:
    """Return one line of ``OUT.masks.jsonl``: facts, and per frame the masks as COCO RLE counts (None: not visible)."""
    facts = demonstration.facts
    height, width = demonstration.images.shape[1:3]
    return {
        "episode": episode,
        "camera": IMAGE_KEY,
        "size": [height, width],
        **{
            key: facts[key]
            for key in ("task", "instruction", "split", "axis", "seed", "target_kind", "target", "reference")
        },
        "target_masks": [_counts(mask) for mask in demonstration.target_masks],
        "reference_masks": None
        if demonstration.reference_masks is None
        else [_counts(mask) for mask in demonstration.reference_masks],
    }


def _counts(mask: NDArray[np.bool_]) -> str | None:
    """Return COCO's run-length counts of ``bool[H, W]`` as text; None for an empty mask."""
    from pixelvla_core.annotations.rle import Rle

    return Rle.encode(mask).counts.decode("ascii") if mask.any() else None


def features(image_size: int) -> dict[str, dict[str, Any]]:
    """Return the dataset's features in LeRobot's form."""
    return {
        IMAGE_KEY: {"dtype": "image", "shape": (image_size, image_size, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (len(spec.STATE_NAMES),), "names": list(spec.STATE_NAMES)},
        "action": {"dtype": "float32", "shape": (len(spec.ACTION_NAMES),), "names": list(spec.ACTION_NAMES)},
    }


@contextmanager
def _writing(folder: Path, image_size: int) -> Iterator[Callable[[Demonstration], None]]:
    """Give a function that appends one demonstration to a new dataset and its masks; close everything in the end."""
    dataset = _create(folder, image_size)
    try:
        with open(_masks_path(folder), "w", encoding="utf-8") as masks:

            def add(demonstration: Demonstration) -> None:
                masks.write(json.dumps(masks_row(dataset.num_episodes, demonstration)) + "\n")
                _add(dataset, demonstration)

            yield add
    except BaseException:
        # Its threads would go on writing into a folder that is about to be removed; the first error is the one to tell.
        with suppress(Exception):
            dataset.finalize()
        raise
    dataset.finalize()


def _create(folder: Path, image_size: int) -> LeRobotDataset:
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()  # one bar per episode otherwise
    logging.getLogger("lerobot.datasets.image_writer").setLevel(logging.CRITICAL)  # `_check_pictures` says it once
    return LeRobotDataset.create(
        repo_id="pixelvla/tabletop",
        fps=spec.FPS,
        features=features(image_size),
        root=folder,
        robot_type="pixelvla_tabletop",
        use_videos=False,
        image_writer_threads=2,
        video_backend="pyav",  # unused, but without one LeRobot tries torchcodec and reports failure at length
    )


def _add(dataset: LeRobotDataset, demonstration: Demonstration) -> None:
    rows = zip(demonstration.images, demonstration.states, demonstration.actions, strict=True)
    for image, state, action in rows:
        dataset.add_frame(
            {IMAGE_KEY: image, "observation.state": state, "action": action, "task": demonstration.facts["instruction"]}
        )
    _check_pictures(dataset, demonstration.images)
    dataset.save_episode()


def _check_pictures(dataset: LeRobotDataset, images: NDArray[np.uint8]) -> None:
    """Write again what did not reach the disk whole: LeRobot's threads only log the error, here it is raised.

    Raises:
        OSError: the disk is still full.
    """
    from PIL import Image

    writer = dataset.writer
    writer.image_writer.wait_until_done()
    for path, image in zip(map(Path, writer.episode_buffer[IMAGE_KEY]), images, strict=True):
        if not _is_whole(path):
            whole = io.BytesIO()
            Image.fromarray(image).save(whole, "png")
            path.write_bytes(whole.getvalue())


def _is_whole(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size < len(PNG_END):
        return False
    with path.open("rb") as file:
        file.seek(-len(PNG_END), io.SEEK_END)
        return file.read() == PNG_END


def _played(jobs: Iterable[Job], workers: int) -> Generator[Demonstration]:
    """Play the jobs in worker processes and yield the results in order, never more than a few ahead."""
    jobs = iter(jobs)
    # Not fork: the parent may hold an OpenGL context or threads, which a fork would copy half-alive.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=serve_parent)
    try:
        ahead: deque[Future[Demonstration]] = deque(
            pool.submit(demonstrate, job) for job in itertools.islice(jobs, 4 * workers)
        )
        while ahead:
            yield ahead.popleft().result()
            ahead.append(pool.submit(demonstrate, next(jobs)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """Give a folder to write into; it and its masks move to ``out`` and beside it only when all went well.

    It lies in ``.NAME.recording`` beside ``out``, which belongs to one recording at a time. What a killed one left
    there is removed by the next one to ``out``; if it was whole, it is put in its place instead.
    """
    workshop = out.with_name(f".{out.name}.recording")
    with _alone(out, workshop):
        staged = workshop / "dataset"
        try:
            if _deliver(workshop, out):
                raise UserError(
                    f"{out} is there now: an earlier recording of that name was whole, but was killed before it had "
                    "been moved to its place; it has been moved, and nothing was recorded. Use it, or remove it and "
                    "record again."
                )
            _check_free(out)
            _remove(staged)
            yield staged
            (workshop / WHOLE).touch()
        finally:
            _deliver(workshop, out)
            shutil.rmtree(workshop, ignore_errors=True)


def _deliver(workshop: Path, out: Path) -> bool:
    """Move what is whole, and has not been moved, to its place: two renames, between which one may be killed.

    Returns:
        Whether there was something to move.
    """
    staged = workshop / "dataset"
    moves = ((_masks_path(staged), _masks_path(out)), (staged, out))
    left = [(source, target) for source, target in moves if source.exists()] if (workshop / WHOLE).exists() else []
    for source, target in left:
        _check_absent(target, f" A whole recording that was to get this name waits in {workshop}.")
        source.rename(target)
    return bool(left)


@contextmanager
def _alone(out: Path, workshop: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(workshop))
        except UserError:
            raise UserError(
                f"Another process is recording into {out}. Wait until it ends or stop it, or choose another folder."
            ) from None
        yield


def _remove(staged: Path) -> None:
    shutil.rmtree(staged, ignore_errors=True)
    _masks_path(staged).unlink(missing_ok=True)


def _masks_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".masks.jsonl")


def _check_free(out: Path) -> None:
    for path in (out, _masks_path(out)):
        _check_absent(path)


def _check_absent(path: Path, why: str = "") -> None:
    if path.exists():
        raise UserError(
            f"{path} exists already.{why} A recording writes a new folder and its masks; choose another name or "
            "remove it."
        )


def _check(episodes: int, workers: int, noise: float) -> None:
    if episodes < 1 or workers < 1 or not 0 <= noise <= 1:
        raise UserError(
            f"episodes={episodes}, workers={workers}, noise={noise} were given; expected at least one episode "
            "and one worker, and noise between 0 and 1."
        )


def _check_failures(failed: int, kept: int) -> None:
    if failed > 50 and failed > 4 * kept:
        raise UserError(
            f"{failed} demonstrations failed and {kept} succeeded. The expert cannot do this under so much "
            "noise; use less, about 0.3."
        )
