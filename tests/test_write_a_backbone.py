"""The first step of docs/write_a_backbone.md: a copy of the example, outside of this repository, can be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / ".tools" / "bin" / "uv"
UV = str(LOCAL) if LOCAL.exists() else shutil.which("uv")


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_a_copy_of_the_example_can_be_installed_from_anywhere(tmp_path: Path) -> None:
    copy = shutil.copytree(
        ROOT / "examples" / "third_party_backbone", tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__")
    )
    done = subprocess.run(
        [str(UV), "pip", "install", "--dry-run", "--offline", "--python", sys.executable, "-e", "."],
        cwd=copy,
        env={**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"+ pixelvla-third-party @ file://{copy}" in done.stderr
