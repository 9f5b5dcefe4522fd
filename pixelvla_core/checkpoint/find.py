"""Where a run keeps its checkpoints, and which one to use."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from pixelvla_core.checkpoint.manifest import MANIFEST, verify
from pixelvla_core.errors import CheckpointError

FOLDER, LAST = "checkpoints", "last"
OPTIMIZER = "optimizer.safetensors"
_STEP = re.compile(r"step-\d+")


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps lies."""
    return run / FOLDER / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The number of optimizer steps after which a checkpoint folder was written."""
    return int(folder.name.removeprefix("step-"))


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first; whether they are sound is not looked at."""
    found = [item for item in (run / FOLDER).glob("step-*") if _STEP.fullmatch(item.name) and item.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def newest(run: Path, *, for_training: bool) -> Path:
    """The newest checkpoint of a run that passes its checksums; warns about newer ones that do not.

    Args:
        for_training: Check the optimizer's state too.

    Raises:
        CheckpointError: there is none.
    """
    reasons = []
    for folder in checkpoints(run):
        try:
            verify(folder, skip=() if for_training else (OPTIMIZER,))
        except CheckpointError as error:
            reasons.append(str(error))
            warnings.warn(f"Passing over a damaged checkpoint. {error}", stacklevel=2)
            continue
        return folder
    found = f"all are damaged: {' '.join(reasons)}" if reasons else "there is none."
    raise CheckpointError(
        f"{run / FOLDER} has no usable checkpoint; {found} Train again without --resume, with another --out."
    )


def resolve(folder: Path) -> Path:
    """The checkpoint meant by a folder: itself, or the newest sound one of a run."""
    if (folder / MANIFEST).is_file():
        return folder
    if (folder / FOLDER).is_dir():
        return newest(folder, for_training=False)
    raise CheckpointError(
        f"{folder} is neither a checkpoint ({MANIFEST} is missing) nor a run ({FOLDER}/ is missing). "
        "Give a folder that `pixelvla wrap` or `pixelvla train` wrote."
    )
