"""Answers that a server gave before, so that none is asked or paid for twice, and none is lost when work is cut off."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path


class Answers:
    """A file of one JSON line for each answer; lines are only ever added, each flushed to the disk before it counts.

    A line that was cut off by a crash is passed over, and the next one starts on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known = dict(_read(path))

    def get(self, *asked: str) -> str | None:
        """The answer to what was asked, or None."""
        return self._known.get(_key(asked))

    def put(self, answer: str, *asked: str) -> None:
        """Keep an answer; it is on the disk when this returns."""
        key = _key(asked)
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        with self._lock:
            self._known[key] = answer
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.write(("" if _ends_a_line(self.path) else "\n").encode() + line.encode())
                file.flush()
                os.fsync(file.fileno())


def _key(asked: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    pairs = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            pairs.append((str(entry["key"]), str(entry["answer"])))
        except (ValueError, KeyError, TypeError):
            continue
    return pairs
