"""Recordings are LeRobot datasets, the same however many workers made them, with masks that fit, or nothing at all."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pixelvla_tabletop import spec
from pixelvla_tabletop.command import record as command
from pixelvla_tabletop.demonstrate import Job, demonstrate
from pixelvla_tabletop.record import IMAGE_KEY, record
from pycocotools import mask as coco

from pixelvla_core.api import UserError

pytestmark = pytest.mark.gl
SIZE = 64


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    out = tmp_path_factory.mktemp("recording") / "set"
    return record(out, 3, tasks=("move_near", "open_drawer"), seed=20, image_size=SIZE, workers=2, noise=0.3)


def _open(folder: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("pixelvla/tabletop", root=folder, video_backend="pyav")


def _shown(index: int):
    return demonstrate(Job(("move_near", "open_drawer")[index % 2], "train", None, 20 + index, SIZE, 0.3))


def test_lerobot_reads_what_was_shown(recorded):
    dataset, shown = _open(recorded.folder), [_shown(index) for index in range(3)]
    assert (dataset.num_episodes, dataset.fps, recorded.failed) == (3, spec.FPS, 0)
    assert len(dataset) == recorded.frames == sum(len(one.actions) for one in shown)
    row = 0
    for episode, one in enumerate(shown):
        for frame in range(len(one.actions)):
            sample = dataset[row]
            assert int(sample["episode_index"]) == episode
            assert sample["task"] == one.facts["instruction"]
            np.testing.assert_array_equal(sample["action"].numpy(), one.actions[frame])
            np.testing.assert_array_equal(sample["observation.state"].numpy(), one.states[frame])
            image = np.rint(sample[IMAGE_KEY].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
            np.testing.assert_array_equal(image, one.images[frame])
            row += 1


def test_masks_fit_the_frames(recorded):
    lines = [json.loads(line) for line in recorded.masks.read_text().splitlines()]
    assert [line["episode"] for line in lines] == [0, 1, 2]
    for index, line in enumerate(lines):
        one = _shown(index)
        assert line["size"] == [SIZE, SIZE]
        assert line["target"] == one.facts["target"]
        for counts, mask in zip(line["target_masks"], one.target_masks, strict=True):
            np.testing.assert_array_equal(_decode(counts, line["size"]), mask)
        assert (line["reference_masks"] is None) == (line["task"] == "open_drawer")


def _decode(counts: str | None, size: list[int]) -> np.ndarray:
    if counts is None:
        return np.zeros(size, bool)
    return coco.decode({"counts": counts.encode(), "size": size}).astype(bool)


def test_the_number_of_workers_changes_nothing(recorded, tmp_path):
    again = record(tmp_path / "one", 3, ("move_near", "open_drawer"), seed=20, image_size=SIZE, workers=1, noise=0.3)
    assert again.masks.read_bytes() == recorded.masks.read_bytes()
    one, two = (pq.read_table(next((it.folder / "data").rglob("*.parquet"))) for it in (again, recorded))
    assert one.equals(two)


def test_a_recording_that_is_broken_off_leaves_nothing(tmp_path):
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "set", 1, ("pick",), image_size=SIZE, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def _processes(group: int) -> set[int]:
    """Those of a process group that have not ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, member = path.read_text().rsplit(")", 1)[1].split()[:3]
            if int(member) == group and state != "Z":
                found.add(int(path.parent.name))
    return found


def _wait(holds, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_a_recording_that_is_killed_leaves_no_process_and_no_dataset(number, to_all, tmp_path):
    """Ctrl-C on a terminal goes to every process."""
    # A shell that starts the tests in the background lets them ignore Ctrl-C, and the recording would inherit that.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{RECORD}"
    options = ["record", str(tmp_path / "set"), "--episodes", "500", "--image-size", "64", "--task", "close_drawer"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *options], stdout=log, stderr=log, start_new_session=True
        )
    masks = tmp_path / ".set.recording" / "dataset.masks.jsonl"
    try:
        _wait(lambda: process.poll() is not None or (masks.exists() and masks.stat().st_size))
        assert process.poll() is None, (tmp_path / "log").read_text()
        (os.killpg if to_all else os.kill)(process.pid, number)
        assert process.wait(60) == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        _wait(lambda: not _processes(process.pid), 20)
    finally:
        for left_over in _processes(process.pid):
            os.kill(left_over, signal.SIGKILL)
    assert "Traceback" not in (tmp_path / "log").read_text()
    left = {path.name for path in tmp_path.iterdir()} - {"log"}
    assert left == ({".set.recording"} if number == signal.SIGKILL else set())


RECORD = "import sys; from pixelvla_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
LITTLE = ["--episodes", "2", "--image-size", "64", "--task", "close_drawer", "--workers", "1"]


@pytest.mark.parametrize("limit", [1_000, 12_000])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(limit, tmp_path):
    """The first limit is less than a picture, the second less than the file with all of them."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n{RECORD}"
    command = [sys.executable, "-c", code, "record", str(tmp_path / "set"), *LITTLE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"Writing to {tmp_path / 'set'} failed: File too large" in done.stderr
    assert "Nothing is kept of this recording." in done.stderr
    assert "Error writing image" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_lerobot_could_not_write_is_written_again(tmp_path, monkeypatch):
    from lerobot.datasets import image_writer

    def half(image, path, compress_level=1):
        whole(image, path, compress_level)
        path.write_bytes(path.read_bytes()[:-100])

    whole = image_writer.write_image
    monkeypatch.setattr(image_writer, "write_image", half)
    done = record(tmp_path / "set", 1, ("close_drawer",), seed=3, image_size=SIZE, workers=1)
    shown = demonstrate(Job("close_drawer", "train", None, 3, SIZE))
    dataset = _open(done.folder)
    assert len(dataset) == len(shown.images)
    for row, image in enumerate(shown.images):
        stored = np.rint(dataset[row][IMAGE_KEY].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        np.testing.assert_array_equal(stored, image)


@pytest.mark.parametrize("killed_at", ["set.masks.jsonl", "set"])
def test_a_recording_killed_as_it_is_moved_is_put_in_its_place_by_the_next(killed_at, tmp_path):
    code = f"""
import os, signal
from pathlib import Path
rename = Path.rename
def deadly(self, target):
    if Path(target).name == {killed_at!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = deadly
{RECORD}"""
    command = [sys.executable, "-c", code, "record", str(tmp_path / "set"), *LITTLE]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    with pytest.raises(UserError, match="was whole, but was killed before"):
        record(tmp_path / "set", 1, ("pick",), image_size=SIZE, workers=1)
    assert {path.name for path in tmp_path.iterdir()} == {"set", "set.masks.jsonl"}
    assert _open(tmp_path / "set").num_episodes == 2
    assert len((tmp_path / "set.masks.jsonl").read_text().splitlines()) == 2


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "precious").touch()
    with pytest.raises(UserError, match="exists already"):
        record(tmp_path / "set", 1)
    assert (tmp_path / "set" / "precious").exists()


def test_a_renderer_that_does_not_exist_is_the_users_error(tmp_path):
    code = "import sys; from pixelvla_core.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "record", str(tmp_path / "set"), "--episodes", "1"],
        env={**os.environ, "MUJOCO_GL": "nonsense"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "MUJOCO_GL=nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_masks_that_exist_are_left_alone(tmp_path):
    masks = tmp_path / "set.masks.jsonl"
    masks.write_text("precious")
    with pytest.raises(UserError, match=r"set\.masks\.jsonl exists already"):
        record(tmp_path / "set", 1)
    assert masks.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [masks]


def test_only_what_recordings_left_is_removed(tmp_path):
    mine, masks, left = tmp_path / "set.part", tmp_path / "set.part.masks.jsonl", tmp_path / ".set.recording"
    for folder in (mine, left / "dataset"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    masks.write_text("precious")
    record(tmp_path / "set", 1, ("close_drawer",), image_size=SIZE, workers=1)
    assert (mine / "file").exists()
    assert masks.read_text() == "precious"
    assert not left.exists()


def test_a_folder_that_another_process_records_into_is_refused(tmp_path):
    left = tmp_path / ".set.recording" / "dataset"
    left.mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from pixelvla_core.files import locked\n"
        "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(left.parent)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="Another process is recording into"):
            record(tmp_path / "set", 1, ("close_drawer",), image_size=SIZE, workers=1)
        other.kill()
    assert left.exists()


def test_the_command_says_what_it_did(tmp_path):
    options = ["--episodes", "1", "--task", "close_drawer", "--image-size", "64", "--workers", "1"]
    done = CliRunner().invoke(command, [str(tmp_path / "set"), *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 episodes" in done.output
    assert (tmp_path / "set.masks.jsonl").exists()
    assert (tmp_path / "set" / "meta" / "info.json").exists()
