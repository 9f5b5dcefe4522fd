"""The quickstart's own commands, in their order, with small numbers in place of its numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pixelvla_core.cli.main import main

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "quickstart.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Step by step", 1)[1].split("## Your own OpenVLA", 1)[0]
SMALL = {"record": ["--episodes", "6"], "eval": ["--episodes", "1", "--workers", "1"]}
FEW_STEPS = [
    f"stages.{stage}.{key}={value}"
    for stage in ("cat", "pue")
    for key, value in (("steps", 2), ("batch_size", 4), ("warmup_steps", 0), ("save_every", 2), ("log_every", 1))
]


def small(command: str) -> list[str]:
    """The words of a command, without its own numbers of episodes and with few steps of training."""
    words = shlex.split(re.sub(r"--episodes \d+", "", command))[1:]
    return [*words, *(FEW_STEPS if words[0] == "train" else []), *SMALL.get(words[0], [])]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.gl
def test_the_quickstart_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    commands = re.findall(r"^pixelvla .+$", SECTION, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        assert main(small(command)) == 0, f"{command}\n{capsys.readouterr().err}"
    for run in ("runs/pixelvla", "runs/base"):
        assert (tmp_path / run / "eval" / "results.json").is_file()
    (program,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    scope: dict = {}
    exec(compile(program, "docs/quickstart.md", "exec"), scope)
    assert scope["actions"].shape == (1, 8, 7)
