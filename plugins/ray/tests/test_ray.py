"""The runner on real Ray workers: the same bytes as one process, and a dead worker costs nothing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from pixelvla_ray.config import RayConfig
from pixelvla_ray.runner import RayRunner, Worker

from pixelvla_core.annotate.run import annotate
from pixelvla_core.errors import UserError
from pixelvla_core.files import sha256

STANDINS = Path(__file__).parents[3] / "tests" / "standins"
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The drawn scenes as an installed plugin, so that workers find them as they find any other."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(STANDINS / "annotating.py", folder)
    about = folder / "annotating-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: annotating\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[pixelvla]\nannotating = annotating\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        yield
        ray.shutdown()


def settings(*more: str) -> list[str]:
    exact = [word for key in MODELS for word in (f"{key}.name=exact", f"{key}.options.episodes=24")]
    return ["recording.name=scenes", "recording.options.episodes=24", *exact, "episodes_per_shard=4", *more]


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "recipe.yaml")]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


@pytest.mark.slow
def test_two_workers_give_the_same_bytes_as_one_process(installed: None, tmp_path: Path) -> None:
    alone = annotate("scenes", tmp_path / "alone", settings())
    together = annotate("scenes", tmp_path / "together", settings("runner=ray"))
    assert contents(together) == contents(alone)


@pytest.mark.slow
def test_a_task_whose_worker_dies_is_done_again(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "died"

    class Dies(Worker):
        def do(self, step: str, key: int) -> object:
            if step == "objects" and not marker.exists():
                marker.write_text("once")
                os.kill(os.getpid(), signal.SIGKILL)
            return super().do(step, key)

    alone = annotate("scenes", tmp_path / "alone", settings())
    monkeypatch.setattr("pixelvla_ray.runner.Worker", Dies)
    together = annotate("scenes", tmp_path / "together", settings("runner=ray"))
    assert marker.exists()
    assert contents(together) == contents(alone)


@pytest.mark.slow
def test_an_error_of_a_task_comes_back_as_it_is(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses(Worker):
        def do(self, step: str, key: int) -> object:
            raise UserError(f"The model cannot do {step}.")

    monkeypatch.setattr("pixelvla_ray.runner.Worker", Refuses)
    with pytest.raises(UserError, match="cannot do closing"):
        annotate("scenes", tmp_path / "out", settings("runner=ray"))


@pytest.mark.slow
def test_a_workers_full_disk_is_told_and_costs_nothing(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Worker):
        def do(self, step: str, key: int) -> object:
            if (step, key) == ("objects", 3):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().do(step, key)

    out = tmp_path / "together"
    with monkeypatch.context() as patch:
        patch.setattr("pixelvla_ray.runner.Worker", Full)
        with pytest.raises(UserError, match="No space left on device"):
            annotate("scenes", out, settings("runner=ray"))
    again = annotate("scenes", out, settings())
    assert contents(again) == contents(annotate("scenes", tmp_path / "alone", settings()))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        RayConfig(workers=0)
    assert RayRunner().options == RayConfig()
