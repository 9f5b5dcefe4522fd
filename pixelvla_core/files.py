"""Writing files and folders so that a crash leaves either the old or the new one, never half of one."""

from __future__ import annotations

import ctypes
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
LOCK = ".lock"
ASIDE = "aside.partial"
"""How the name ends of a folder that another is about to replace."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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


def _beside(path: Path, ending: str = "partial") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{ending}")


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

    An existing ``path`` is exchanged for it in one step. Where the file system cannot do that, the old one is moved
    aside first and removed last; if the second step fails it is put back, and if the process is killed between the two
    :func:`remove_partials` puts it back.
    """
    partial, aside = _beside(path), _beside(path, ASIDE)
    partial.mkdir()
    try:
        yield partial
        for item in [*partial.rglob("*"), partial]:
            _sync(item)
        if not _exchanged(partial, path):
            if path.exists():
                path.rename(aside)
            partial.rename(path)
        _sync(path.parent)
    finally:
        _put_back(aside)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _exchanged(first: Path, second: Path) -> bool:
    """Let two paths change places in one step, and say whether system and file system could (Linux's renameat2)."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    return call is not None and not call(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )


def _put_back(aside: Path) -> None:
    """Give a folder that was moved aside its name again, if nothing took its place."""
    name = aside.name.removeprefix(".").removesuffix(f".{ASIDE}").rpartition(".")[0]
    if aside.exists() and not aside.with_name(name).exists():
        aside.rename(aside.with_name(name))


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
    """Remove what a killed process left half-written in ``folder``, and put back what it had moved aside.

    Hold the folder's lock while you call this.
    """
    for aside in folder.glob(f".*.{ASIDE}"):
        _put_back(aside)
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
    with (folder / LOCK).open("w") as file:
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
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; unlike :func:`locked` it waits for whoever holds it, and then goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_target(folder: Path, made: str, *, ours: bool = False) -> None:
    """Refuse to write into a folder that is not new, not empty and not the command's own; call it before any work.

    Args:
        folder: Where the command is going to write; it need not exist.
        made: What the command makes, for the message: "a run", "an evaluation".
        ours: Whether what is there comes from the same command and may be added to.

    Raises:
        UserError: something else is there or above it, or the system lets nobody write there.
    """
    nearest = existing(folder)
    if not nearest.is_dir():
        raise UserError(f"{folder} cannot be a folder: {nearest} is a file. Give another --out.")
    if nearest == folder and not ours and any(not _passing(item.name) for item in folder.iterdir()):
        raise UserError(f"{folder} exists and is not {made}, so it is not overwritten. Give another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: {nearest} is read-only for you. Give another --out.")


def check_outside(out: Path, dataset: str) -> None:
    """Refuse a folder within a dataset's own, whose reader would take the files there for its own.

    Raises:
        UserError: it is there; says what to give instead.
    """
    root = Path(dataset)
    if root.is_dir() and Path(out).resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{out} lies within the dataset {dataset}, which must stay as it is: what reads it would take our files "
            "for data. Give a folder beside it."
        )


def _passing(name: str) -> bool:
    """Whether a file is what a command leaves that was refused or killed before it wrote anything."""
    return name == LOCK or (name.startswith(".") and name.endswith(".partial"))


def existing(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    return path if os.path.lexists(path) or path == path.parent else existing(path.parent)


def size(count: float) -> str:
    """A number of bytes as one reads it: ``512 B``, ``3.2 MiB``, ``14 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"


@contextmanager
def full_disk_is_user_error(folder: Path, kept: str, again: str) -> Iterator[None]:
    """Turn a full disk into one clear paragraph; ``kept`` says what is still there, ``again`` how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = size(shutil.disk_usage(existing(folder)).free)
        raise UserError(
            f"Writing to {folder} failed: {os.strerror(error.errno)}; {free} are free there. {kept} "
            f"Free some space (or raise the file-size limit) and {again}."
        ) from error
