"""Faults put into an annotation at every step: it says what is wrong, loses nothing, and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelvla_core import builtin, files
from pixelvla_core.annotate.batches import in_batches, is_out_of_memory
from pixelvla_core.annotate.run import annotate
from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.validate import validate
from pixelvla_core.errors import UserError
from pixelvla_core.files import sha256
from pixelvla_core.plugins import PluginManager, Registry

STANDINS = Path(__file__).parent / "standins"
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")
EXACT = [word for key in MODELS for word in (f"{key}.name=exact", f"{key}.options.episodes=8")]
SETTINGS = ["recording.name=scenes", "recording.options.episodes=8", *EXACT, "episodes_per_shard=4", "batch=4"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    import annotating

    return PluginManager([builtin, annotating]).registry


@pytest.fixture
def whole(registry: Registry, tmp_path: Path) -> dict[str, str]:
    """The files of an annotation that nothing disturbed."""
    return contents(annotate("scenes", tmp_path / "whole", SETTINGS, registry))


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# A full disk


def final(partial: Path) -> Path:
    """The path that a half-written file will have."""
    return partial.with_name(partial.name.removeprefix(".").removesuffix(".partial").rpartition(".")[0])


def test_a_disk_that_is_full_at_any_write_costs_nothing(
    registry: Registry, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file goes through the same door, which is shut to each of them once."""
    out, sync, refused, said = tmp_path / "out", files._sync, set[str](), []

    def full(path: Path) -> None:
        if path.is_file() and (name := final(path).relative_to(out).as_posix()) not in refused:
            refused.add(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    while True:
        try:
            annotate("scenes", out, SETTINGS, registry)
            break
        except UserError as error:
            said.append(str(error))
            assert not list(out.rglob(".*.partial"))
    assert refused == set(whole)
    assert len(said) == len(whole)
    assert all("No space left" in each and "Finished tasks stay" in each for each in said)
    assert contents(out) == whole


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import annotating
from pathlib import Path
from pixelvla_core import builtin
from pixelvla_core.annotate.run import annotate
from pixelvla_core.errors import UserError
from pixelvla_core.plugins import PluginManager
registry = PluginManager([builtin, annotating]).registry
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    annotate("scenes", Path(sys.argv[2]), sys.argv[4:], registry)
except UserError as error:
    print("refused:", error)
"""


def test_files_that_the_system_will_not_let_grow_are_told_and_made_later(
    registry: Registry, tmp_path: Path, whole: dict[str, str]
) -> None:
    """A limit on the size of files stands in for a full disk: here Parquet's own writer meets it."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED, str(STANDINS), str(out), "3000", *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "refused: Writing to" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert contents(annotate("scenes", out, SETTINGS, registry)) == whole


# Memory


class Scarce:
    """Lets a model's method fail for lack of memory: at the calls that ``fails`` picks."""

    def __init__(self, fails: Callable[[int, Sequence[Any]], bool], error: Callable[[], Exception]) -> None:
        self.fails, self.error, self.calls, self.failed = fails, error, 0, 0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def scarce(model: Any, *given: Any) -> Any:
            self.calls += 1
            if self.fails(self.calls, given):
                self.failed += 1
                raise self.error()
            return method(model, *given)

        return scarce


def cuda() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def host() -> Exception:
    """What torch really raises where the machine's memory ends."""
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error
    raise AssertionError("there is an exbibyte")


def opencv() -> Exception:
    import cv2

    return cv2.error("OpenCV(4.13) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 12 bytes")


@pytest.mark.parametrize("error", [MemoryError, cuda, host, opencv])
def test_batches_that_do_not_fit_are_halved(
    error: Callable[[], Exception],
    registry: Registry,
    tmp_path: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from annotating import Oracle

    scarce = Scarce(lambda call, given: len(given[0]) > 1, error)
    monkeypatch.setattr(Oracle, "detect", scarce.around(Oracle.detect))
    assert contents(annotate("scenes", tmp_path / "out", SETTINGS, registry)) == whole
    assert scarce.failed == 2 * 3  # each batch of four, and both halves


@pytest.mark.parametrize(("method", "call"), [("find", 1), ("start", 3), ("step", 1), ("step", 17)])
def test_a_call_that_cannot_be_halved_is_made_again_once_memory_is_freed(
    method: str, call: int, registry: Registry, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from annotating import Oracle

    scarce = Scarce(lambda number, given: number == call, cuda)
    monkeypatch.setattr(Oracle, method, scarce.around(getattr(Oracle, method)))
    assert contents(annotate("scenes", tmp_path / "out", SETTINGS, registry)) == whole
    assert scarce.failed == 1


@pytest.mark.parametrize(
    ("method", "advice"),
    [("detect", "smaller model"), ("find", "smaller video.chunk"), ("step", "another tracker")],
)
def test_memory_that_never_suffices_stops_with_advice_and_loses_nothing(
    method: str,
    advice: str,
    registry: Registry,
    tmp_path: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from annotating import Oracle

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Oracle, method, Scarce(lambda *_: True, cuda).around(getattr(Oracle, method)))
        with pytest.raises(UserError, match=advice) as caught:
            annotate("scenes", out, SETTINGS, registry)
    assert "does not fit into memory (CUDA out of memory" in str(caught.value)
    assert contents(annotate("scenes", out, SETTINGS, registry)) == whole


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(ZeroDivisionError):
        list(in_batches(lambda batch: [1 // item for item in batch], [1, 0, 2], 3))


# Weights and servers


@pytest.fixture(scope="module")
def installed() -> Registry:
    return PluginManager.load().registry


@pytest.mark.parametrize(
    ("setting", "command"),
    [
        ("reasoner=hf", "hf download meta-llama/Llama-2-7b-chat-hf"),
        ("detector=grounding_dino", "hf download IDEA-Research/grounding-dino"),
        ("segmenter=sam2", "hf download facebook/sam2"),
        ("tracker=sam2", "hf download facebook/sam2"),
    ],
)
def test_missing_weights_are_named_with_their_command_before_any_work(
    setting: str, command: str, installed: Registry, filmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=command):
        annotate(str(filmed), tmp_path / "out", ["camera=image", "profile=libero", setting], installed)
    assert not (tmp_path / "out").exists()


# Damaged videos


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real recording, all episodes of a camera in one video file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STANDINS))
        patch.setenv("PIXELVLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        import filming

        yield filming.record(tmp_path_factory.mktemp("filmed") / "bowls", "h264", 7)


def video(root: Path) -> Path:
    (path,) = (root / "videos" / "observation.images.image").rglob("*.mp4")
    return path


def reasons(root: Path, out: Path, registry: Registry, *more: str) -> dict[int, str]:
    annotate(
        str(root),
        out,
        ["camera=image", "profile=libero", "episodes_per_shard=4", "filters.min_inside=0.0", *more],
        registry,
    )
    assert validate(out) == []
    return {note.episode: note.reason for note in read_episodes(out)}


def cut(path: Path) -> None:
    """Keep the beginning, as a copy that was broken off."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])


def spoil(path: Path) -> None:
    """Put noise in the middle."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = np.random.default_rng(0).bytes(600)
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "lost"), [(cut, {2, 3, 4, 5}), (spoil, {2, 3})])
def test_only_episodes_that_cannot_be_decoded_are_corrupt(
    damage: Callable[[Path], None], lost: set[int], filmed: Path, tmp_path: Path, installed: Registry
) -> None:
    broken = Path(shutil.copytree(filmed, tmp_path / "broken"))
    damage(video(broken))
    found = reasons(broken, tmp_path / "out", installed)
    corrupt = {episode for episode, reason in found.items() if reason.startswith("corrupt: The images of episode")}
    assert corrupt
    assert corrupt <= lost
    assert all(not reason for episode, reason in found.items() if episode not in corrupt)
    sound, sidecar = Sidecar(whole_of(filmed, tmp_path, installed)), Sidecar(tmp_path / "out")
    for episode in set(found) - corrupt:
        assert sidecar.find(episode, 13) == sound.find(episode, 13)


def whole_of(filmed: Path, tmp_path: Path, registry: Registry) -> Path:
    assert not any(reasons(filmed, tmp_path / "sound", registry).values())
    return tmp_path / "sound"


def test_a_video_that_is_gone_costs_its_episodes_alone(filmed: Path, tmp_path: Path, installed: Registry) -> None:
    broken = Path(shutil.copytree(filmed, tmp_path / "broken"))
    video(broken).write_bytes(b"")
    found = reasons(broken, tmp_path / "out", installed)
    assert all(reason.startswith("corrupt: ") for reason in found.values())


def test_more_open_files_than_allowed_do_not_make_episodes_corrupt(
    filmed: Path, tmp_path: Path, installed: Registry
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 24, before[1]))
    try:
        assert not any(reasons(filmed, tmp_path / "out", installed).values())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
