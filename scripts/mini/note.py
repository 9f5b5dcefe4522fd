"""Note a step of make_mini.sh that has just been done, so that provenance.json can tell exactly what was run.

    python scripts/mini/note.py WORK NAME MADE COMMAND [ARGUMENT ...]

adds one line of JSON to WORK/steps.jsonl: the command (paths below WORK relative to it), the commit and the versions
that it ran with, and the sha256 of MADE, the file or folder that is to be called NAME.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pixelvla_core.files import sha256

LOG = "steps.jsonl"
ROOT = Path(__file__).resolve().parents[2]
OURS = ("pixelvla", "pixelvla-openvla", "pixelvla-pi0", "pixelvla-tabletop")
VERSIONS = (*OURS, "torch", "transformers", "timm", "lerobot", "mujoco", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of the packages that weights depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def commit() -> str:
    """The commit of this code, with "-dirty" if files differ from it; empty outside a clone."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def digest(made: Path) -> str:
    """The sha256 of a file, or of the names and contents of all files in a folder."""
    if made.is_file():
        return sha256(made)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(made).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def note(work: Path, name: str, made: Path, command: list[str]) -> None:
    """Add the line; it is one write to a file opened for appending, so that steps may run side by side."""
    words = [word.replace(f"{work}/", "") for word in command]
    line = {
        "command": [Path(words[0]).name, *words[1:]],
        "commit": commit(),
        "made": name,
        "sha256": digest(made),
        "versions": versions(),
    }
    with (work / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line, sort_keys=True) + "\n")


def noted(work: Path) -> list[dict[str, Any]]:
    """The lines of a folder's log; none if there is no log."""
    log = work / LOG
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


if __name__ == "__main__":
    note(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
