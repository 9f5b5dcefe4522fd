"""``make setup`` says what takes so long. The tools that it calls are stood in for: the real ones take minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _setup(folder: Path) -> str:
    (folder / "scripts").mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("uv", "apt-get", "sudo"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >&2\n')
        (tools / name).chmod(0o755)
    done = subprocess.run(
        [folder / "scripts" / "setup.sh"],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_every_step_is_said_before_it_is_done(tmp_path: Path) -> None:
    said = _setup(tmp_path)
    assert said.index("setup: making .venv") < said.index("uv sync --frozen") < said.index("setup: done")
    assert "--quiet" not in said


def test_later_times_are_short_and_keep_what_the_user_installed(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "pixelvla"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    said = _setup(tmp_path)
    assert "setup: bringing .venv" in said
    assert "uv sync --frozen --inexact --quiet" in said
