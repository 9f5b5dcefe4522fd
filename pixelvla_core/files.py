"""Writing files and folders so that a crash leaves either the old or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelvla_core.errors import UserError

# EFBIG: a file-size limit of the shell or the file system; to the user it is the same trouble as a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it is fsynced and renamed over ``path``."""
    partial = _beside(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` to fill; on success its files are fsynced and it takes the place of ``path``.

    An existing ``path`` is moved aside first and removed last, so that one complete folder exists at any moment.
    """
    partial, old = _beside(path), _beside(path)
    partial.mkdir()
    try:
        yield partial
        for item in [*partial.rglob("*"), partial]:
            _sync(item)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; keys are sorted, so that equal values give equal files."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def point_link(path: Path, target: str) -> None:
    """Let the symbolic link ``path`` point to ``target``; at any moment it points to the old or the new one."""
    partial = _beside(path)
    partial.symlink_to(target)
    partial.replace(path)
    _sync(path.parent)


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half-written in ``folder``. Hold the folder's lock while you call this."""
    for leftover in folder.glob(".*.partial"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the kernel lets go when the process ends, however it ends.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            # Not flock: children that outlive a killed process for a while would inherit that lock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"{folder} is in use by another process, which would mix its files with ours. "
                "Wait until it ends or stop it, or give another --out."
            ) from None
        yield


@contextmanager
def full_disk_is_user_error(folder: Path, kept: str) -> Iterator[None]:
    """Turn a full disk into one clear paragraph; ``kept`` says what is still there."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(folder).free / 2**20 if folder.exists() else 0
        raise UserError(
            f"Writing to {folder} failed: {os.strerror(error.errno)}; {free:.0f} MiB are free there. {kept} "
            "Free some space (or raise the file-size limit) and run the same command again with --resume."
        ) from error
