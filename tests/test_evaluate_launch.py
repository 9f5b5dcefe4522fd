"""Workers are forked from a server that imported what is heavy, and nothing outlives the process that evaluates."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pixelvla_core.evaluate.launch import LAUNCHER, Launcher

STANDINS = Path(__file__).parent / "standins"


@pytest.fixture
def launching(monkeypatch):
    monkeypatch.syspath_prepend(str(STANDINS))
    import launching

    return launching


def test_a_forked_worker_has_the_environment_of_now(launching, monkeypatch):
    launching.ask(LAUNCHER)
    monkeypatch.setenv("PIXELVLA_TEST_MARK", "set after the server started")
    monkeypatch.delenv("HOME")
    seen = launching.ask(LAUNCHER)
    assert seen["parent"] != os.getpid()
    assert seen["environment"] == dict(os.environ)


def test_workers_are_spawned_where_thread_counts_changed_since_they_were_read(launching, monkeypatch):
    launching.ask(LAUNCHER)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    seen = launching.ask(LAUNCHER)
    assert seen["parent"] == os.getpid()
    assert seen["environment"]["OMP_NUM_THREADS"] == "7"


def test_workers_are_spawned_where_there_is_no_fork_server(launching, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert launching.ask(Launcher())["parent"] == os.getpid()


def launched(folder: Path, *words: str) -> subprocess.Popen:
    """A process of its own, for only the first worker of a process starts its server."""
    path = os.pathsep.join((str(STANDINS), str(folder)))
    command = [sys.executable, str(STANDINS / "launching.py"), *words]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_what_fails_to_import_leaves_the_rest_preloaded(tmp_path):
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such device')")
    answer, _ = launched(tmp_path, "broken", "absent", "wave").communicate(timeout=300)
    assert json.loads(answer) == {"forked": True, "modules": ["wave"]}


def test_files_in_the_working_directory_stand_for_no_library(tmp_path):
    """Such as a user's own random.py, or another checkout of pixelvla."""
    for name in ("wave", "pixelvla_core"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the one')")
    command = [sys.executable, "-P", str(STANDINS / "launching.py"), "wave"]
    environment = {**os.environ, "PYTHONPATH": str(STANDINS)}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert json.loads(answer.stdout) == {"forked": True, "modules": ["wave"]}


def test_workers_are_spawned_if_a_part_starts_threads_on_import(tmp_path):
    lines = ("import threading, time", "threading.Thread(target=time.sleep, args=(9999,), daemon=True).start()")
    (tmp_path / "threaded.py").write_text("\n".join(lines))
    answer, _ = launched(tmp_path, "threaded").communicate(timeout=300)
    assert json.loads(answer) == {"forked": False, "modules": []}


def living(group: int) -> set[int]:
    """Processes of a group that have not ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, member = path.read_text().rsplit(")", 1)[1].split()[:3]
            if int(member) == group and state != "Z":
                found.add(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_neither_server_nor_worker_outlives_a_killed_evaluation(tmp_path):
    process = launched(tmp_path, "--stay")
    try:
        assert json.loads(process.stdout.readline())["forked"]
        assert len(living(process.pid)) >= 3  # it, the server and the worker
        process.kill()
        process.wait()
        end = time.monotonic() + 60
        while living(process.pid):
            assert time.monotonic() < end, "a process is left"
            time.sleep(0.05)
    finally:
        for left_over in living(process.pid):
            os.kill(left_over, signal.SIGKILL)
