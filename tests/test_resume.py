"""A run that is killed and resumed ends bit-identical to one that was not: real processes, real SIGKILL."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelvla_core.files import sha256

TOY = Path(__file__).with_name("toy") / "train_toy.py"
LAST = "step-000014"
PAINTED = ("prompt_encoder=trembling", "stages.pue.train=[pixel,head,lora]")
"""With a part that draws from the generators of torch, NumPy and Python."""


class Trainer:
    """A process that has everything imported and forks one training process per order."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(TOY), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._line() == "ready"

    def start(self, out: Path, *arguments: str) -> int:
        self.process.stdin.write("\t".join([str(out), *arguments]) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        return int(self._line())

    def run(self, out: Path, *arguments: str) -> int:
        self.start(out, *arguments)
        return self.wait()

    def _line(self) -> str:
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    trainer = Trainer()
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait(120)


@pytest.fixture(scope="module")
def whole(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert trainer.run(out) == 0, log(out)
    return out


def log(out: Path) -> str:
    return Path(f"{out}.log").read_text()


def content(run: Path, step: str = LAST) -> dict[str, str]:
    """Hash of every file of a checkpoint."""
    return {file.name: sha256(file) for file in sorted((run / "checkpoints" / step).iterdir())}


def losses(run: Path) -> list[tuple[int, float, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def kill_when(pid: int, moment, seconds: float = 60) -> None:
    """Kill a process as soon as ``moment()`` holds, or at the end of its time."""
    end = time.monotonic() + seconds
    while not moment() and time.monotonic() < end and Path(f"/proc/{pid}").exists():
        time.sleep(0.0005)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def saving(run: Path, step: int) -> bool:
    """Whether a checkpoint is being written right now (or just was, where this process looked too late)."""
    return any((run / "checkpoints").glob(f".step-{step:06d}.*.partial")) or checkpoint(run, step).exists()


MOMENTS = {
    "before the first checkpoint": lambda run: (run / "recipe.yaml").exists(),
    "while the first is written": lambda run: saving(run, 2),
    "in the first stage": lambda run: checkpoint(run, 4).exists(),
    "between the stages": lambda run: checkpoint(run, 6).exists(),
    "while a later one is written": lambda run: saving(run, 9),
    "in the second stage": lambda run: checkpoint(run, 9).exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_is_bit_identical(moment: str, trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pid = trainer.start(out)
    kill_when(pid, lambda: MOMENTS[moment](out))
    assert trainer.wait() == -signal.SIGKILL, log(out)
    assert not checkpoint(out, 14).exists()
    assert trainer.run(out, "--resume") == 0, log(out)
    assert content(out) == content(whole)
    assert losses(out) == losses(whole)


@pytest.fixture(scope="module")
def shaken(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with a part that draws from the global generators."""
    out = tmp_path_factory.mktemp("shaken") / "run"
    assert trainer.run(out, *PAINTED) == 0, log(out)
    return out


def test_a_part_may_draw_from_the_global_generators(
    trainer: Trainer, whole: Path, shaken: Path, tmp_path: Path
) -> None:
    """Collation is seeded by the position, like everything else."""
    out = tmp_path / "run"
    assert losses(shaken) != losses(whole)
    pid = trainer.start(out, *PAINTED)
    kill_when(pid, lambda: checkpoint(out, 9).exists())
    assert trainer.wait() == -signal.SIGKILL, log(out)
    assert trainer.run(out, *PAINTED, "--resume") == 0, log(out)
    assert content(out) == content(shaken)


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_random(seed: int, trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    random.seed(seed)
    out, status, kills = tmp_path / "run", None, 0
    while status != 0:
        pid = trainer.start(out, "--resume")
        end = time.monotonic() + random.uniform(0.2, 1.5) * 1.3**kills
        # A fast machine may be done before the first time is up.
        late = checkpoint(out, 9).exists if kills == 0 else lambda: False
        kill_when(pid, lambda end=end, late=late: time.monotonic() > end or late())
        status = trainer.wait()
        kills += status != 0
        assert status in (0, -signal.SIGKILL), log(out)
    assert kills > 0
    assert content(out) == content(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(number: int, trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    """A terminal and a scheduler send the signal to every process, workers included."""
    out = tmp_path / "run"
    pid = trainer.start(out)
    while not checkpoint(out, 9).exists():
        time.sleep(0.001)
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert workers
    for process in [*map(int, workers), pid]:
        os.kill(process, number)
    assert trainer.wait() == 130, log(out)
    assert f"pixelvla train --out {out} --resume" in log(out)
    assert trainer.run(out, "--resume") == 0, log(out)
    assert content(out) == content(whole)


def most_children(pid: int) -> int:
    """The most processes that one had at a time; returns when it has ended."""
    most, path = 0, Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        try:
            most = max(most, len(path.read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            return most
        time.sleep(0.001)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_do_not_change_what_is_learned(workers: int, trainer: Trainer, shaken: Path, tmp_path: Path) -> None:
    """Though a part draws from the global generators, of which every process has its own."""
    out = tmp_path / "run"
    most = most_children(trainer.start(out, *PAINTED, f"--workers={workers}"))
    assert trainer.wait() == 0, log(out)
    assert most >= workers
    assert bool(most) == bool(workers)
    assert content(out) == content(shaken)


def test_full_disk_is_one_paragraph_and_loses_nothing(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    """Go on after the first stage with a limit below the size of a checkpoint's largest file."""
    out = Path(shutil.copytree(whole, tmp_path / "run", symlinks=True))
    for step in (9, 12, 14):
        shutil.rmtree(checkpoint(out, step))
    before = content(out, "step-000006")
    assert trainer.run(out, "--resume", "--file-limit=400000") == 2, log(out)
    errors = [line for line in log(out).splitlines() if line.startswith("Error:")]
    assert len(errors) == 1
    assert "File too large" in errors[0]
    assert log(out).splitlines()[-1] == errors[0]
    assert {folder.name for folder in (out / "checkpoints").iterdir()} == {"step-000006", "last"}
    assert content(out, "step-000006") == before
    assert trainer.run(out, "--resume") == 0, log(out)
    assert content(out) == content(whole)


def test_damaged_checkpoint_is_passed_over(trainer: Trainer, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run", symlinks=True))
    shutil.rmtree(checkpoint(out, 14))
    damaged = checkpoint(out, 12) / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert trainer.run(out, "--resume") == 0, log(out)
    assert "damaged" in log(out)
    assert str(checkpoint(out, 9)) in log(out)
    assert content(out) == content(whole)
