"""The sidecar of a recording whose simulator left its exact masks beside it."""

from __future__ import annotations

from pathlib import Path

from pixelvla_core.annotations.oracle import annotate
from pixelvla_lerobot.source import Source, short_name


def annotate_recording(dataset: Path, masks: Path, out: Path, *, camera: str = "front", seed: int = 0) -> Path:
    """Write the sidecar ``out`` of a LeRobotDataset's folder from a stream of exact masks, and return it.

    Raises:
        DataError: the dataset or the stream is damaged, or they do not fit.
    """
    source = Source(Path(dataset), Path(dataset).name)
    return annotate(
        Path(masks),
        Path(out),
        dataset=source.name,
        fingerprint=source.fingerprint,
        camera=short_name(source.camera_key(camera)),
        lengths=source.columns.lengths,
        seed=seed,
    )
