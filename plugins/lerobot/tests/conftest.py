"""Small real LeRobotDatasets, made once per session with LeRobot's own API, and sidecars for them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.dataset import LeRobotSamples
from pixelvla_lerobot.source import Source

sys.path.insert(0, str(Path(__file__).parent))
from cups import LENGTHS, mask, record

from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, Annotation, Header
from pixelvla_core.annotations.writer import SidecarWriter


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> dict[str, Path]:
    """Folders of the same recording as videos and as images; copy before changing anything."""
    root = tmp_path_factory.mktemp("recorded")
    return {kind: record(root / kind, videos=kind == "videos") for kind in ("videos", "images")}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copied(recorded, tmp_path, cache) -> Callable[[str], Path]:
    """Copy a recording to where it may be damaged."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(recorded[kind], tmp_path / kind))

    return copy


@pytest.fixture
def load(cache) -> Callable[..., LeRobotSamples]:
    def load(root: Path, **options) -> LeRobotSamples:
        return LeRobotSamples(LeRobotConfig(root=str(root), **options))

    return load


def annotation(episode: int, frame: int, **changes) -> Annotation:
    facts = {"mask": Rle.encode(mask(episode, frame)), "target": "cup", "source": "test"} | changes
    return Annotation(episode=episode, frame=frame, camera="front", **facts)


def hidden(episode: int, frame: int) -> Annotation:
    return annotation(episode, frame, mask=None, status=ABSENT)


@pytest.fixture
def annotate(tmp_path) -> Callable[..., Path]:
    """Write a sidecar.

    ``skip`` leaves frames out, ``hide`` marks them absent, ``notes`` says what became of each episode, ``header``
    changes the header.
    """

    def annotate(root: Path, *, skip: tuple = (), hide: tuple = (), notes: tuple = (), **header) -> Path:
        facts = {"dataset": "me/cups", "fingerprint": Source(root, "me/cups").fingerprint, "camera": "front"}
        writer = SidecarWriter(tmp_path / "sidecar", Header(**(facts | header)), range(len(LENGTHS)))
        rows = [
            hidden(episode, frame) if (episode, frame) in hide else annotation(episode, frame)
            for episode, length in enumerate(LENGTHS)
            for frame in range(length)
            if (episode, frame) not in skip
        ]
        writer.write(tuple(range(len(LENGTHS))), rows)
        return writer.finish(episodes=notes)

    return annotate
