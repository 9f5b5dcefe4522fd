"""Files and folders are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core import files
from pixelvla_core.errors import UserError


def write_half(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_atomic_file_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_atomic_file_keeps_the_old_one_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_file(path) as partial:
        write_half(partial)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_folder_replaces_whole(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for content in ("one", "two"):
        with files.atomic_folder(folder) as partial:
            (partial / content).write_text(content)
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["f"]


def test_atomic_folder_keeps_the_old_one_after_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    with files.atomic_folder(folder) as partial:
        (partial / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(folder) as partial:
        write_half(partial / "a")
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def folder_of(tmp_path: Path, content: str) -> Path:
    with files.atomic_folder(tmp_path / "f") as partial:
        (partial / "a").write_text(content)
    return tmp_path / "f"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders in one step")
def test_atomic_folder_is_there_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "old")
    (tmp_path / "x").mkdir()
    if not files._exchanged(tmp_path / "x", tmp_path / "f"):
        pytest.skip("this file system exchanges nothing")
    files._exchanged(tmp_path / "x", tmp_path / "f")
    (tmp_path / "x").rmdir()
    monkeypatch.setattr(Path, "rename", lambda path, target: pytest.fail(f"{path} was moved"))
    assert (folder_of(tmp_path, "new") / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_atomic_folder_puts_the_old_one_back_if_the_new_one_cannot_take_its_place(
    error: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial") and not path.name.endswith(files.ASIDE):
            raise error
        return rename(path, target)

    folder_of(tmp_path, "old")
    monkeypatch.setattr(files, "_exchanged", lambda first, second: False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken)
        with pytest.raises(error):
            folder_of(tmp_path, "new")
    assert (tmp_path / "f" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]
    folder_of(tmp_path, "new")
    assert (tmp_path / "f" / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["f"]


KILL = """
import os, pathlib, signal, sys
from pixelvla_core import files
folder, rename = pathlib.Path(sys.argv[1]), pathlib.Path.rename
def last(path, target):
    rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
files._exchanged, pathlib.Path.rename = lambda first, second: False, last
with files.atomic_folder(folder) as partial:
    (partial / "a").write_text("new")
"""


def test_a_folder_survives_a_kill_between_the_two_steps_of_its_replacement(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "old")
    killed = subprocess.run([sys.executable, "-c", KILL, str(folder)])
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    files.remove_partials(tmp_path)
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_what_was_moved_aside_is_removed_if_its_successor_is_there(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "new")
    (tmp_path / f".f.0123abcd.{files.ASIDE}").mkdir()
    files.remove_partials(tmp_path)
    assert (folder / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["f"]


@settings(max_examples=25)
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4))
def test_json_does_not_depend_on_the_order_of_keys(value: dict) -> None:
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        files.write_json(path, value)
        first = path.read_bytes()
        files.write_json(path, dict(reversed(value.items())))
        assert path.read_bytes() == first
        assert json.loads(first) == value


def test_link_moves_and_leaves_nothing_beside(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.point_link(tmp_path / "last", name)
        assert (tmp_path / "last").resolve() == tmp_path / name
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "last"]


def test_partials_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".step.0a.partial").mkdir()
    (tmp_path / ".step.0a.partial" / "x").write_text("x")
    (tmp_path / ".file.0b.partial").write_text("x")
    (tmp_path / "kept").write_text("x")
    files.remove_partials(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


HOLD = """
import sys, pathlib
from pixelvla_core.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="in use by another process"), files.locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with files.locked(tmp_path):
        pass


@pytest.mark.parametrize("number", files.FULL)
def test_full_disk_becomes_one_paragraph(number: int, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="and add --resume") as caught,
        files.full_disk_is_user_error(tmp_path, "All is kept.", "add --resume"),
    ):
        raise OSError(number, os.strerror(number))
    assert "All is kept." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_system_errors_stay_themselves(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.full_disk_is_user_error(tmp_path, "", ""):
        raise PermissionError(errno.EACCES, "no")


def test_a_target_is_new_empty_or_the_commands_own(tmp_path: Path) -> None:
    files.check_target(tmp_path / "a" / "b", "a run")
    files.check_target(tmp_path, "a run")
    (tmp_path / ".lock").touch()
    (tmp_path / ".recipe.yaml.0123abcd.partial").touch()
    files.check_target(tmp_path, "a run")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="exists and is not a run, so it is not overwritten"):
        files.check_target(tmp_path, "a run")
    files.check_target(tmp_path, "a run", ours=True)


@pytest.mark.parametrize("target", ["thesis.txt", "thesis.txt/a/b"])
def test_a_target_is_no_file_and_not_under_one(target: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis\.txt is a file"):
        files.check_target(tmp_path / target, "a run", ours=True)


def test_a_target_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match="read-only"):
        files.check_target(tmp_path / "a" / "b", "a run")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (3_400_000, "3.2 MiB"), (14 * 2**30, "14 GiB"), (2**53, "8192 TiB")],
)
def test_sizes_are_in_a_unit_that_shows_them(count: int, text: str) -> None:
    assert files.size(count) == text
