"""From a small TFDS folder, written here by its own writer, to a LeRobotDataset."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pixelvla_rlds import convert as converting
from pixelvla_rlds.convert import convert
from pixelvla_rlds.layouts import BRIDGE, FRACTAL, LAYOUTS, choose, read_features
from pixelvla_rlds.shards import episodes_of, shards
from pixelvla_rlds.tfrecord import crc32c, example, masked, records

from pixelvla_core.cli.main import main
from pixelvla_core.errors import DataError
from pixelvla_core.files import sha256

SIDE, LENGTHS = 32, (3, 5, 4)


def slow_crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode(values: dict) -> bytes:
    entries = b""
    for name, value in values.items():
        if isinstance(value, list):
            coded = field(1, b"".join(field(1, one) for one in value))
        elif value.dtype.kind == "f":
            coded = field(2, field(1, value.astype("<f4").tobytes()))
        else:
            coded = field(3, field(1, b"".join(varint(int(one)) for one in value.ravel())))
        entries += field(1, field(1, name.encode()) + field(2, coded))
    return field(1, entries)


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked(length)) + payload + struct.pack("<I", masked(payload))


def tensor(*shape: int, dtype: str = "float32") -> dict:
    return {"pythonClassName": "Tensor", "tensor": {"shape": {"dimensions": list(map(str, shape))}, "dtype": dtype}}


def nested(children: dict) -> dict:
    return {"pythonClassName": "FeaturesDict", "featuresDict": {"features": children}}


IMAGE = {"image": {"shape": {"dimensions": [str(SIDE), str(SIDE), "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
TEXT = {"text": {}}
BRIDGE_STEP = {
    "observation": nested({"image_0": IMAGE, "image_1": IMAGE, "state": tensor(7)}),
    "action": tensor(7),
    "language_instruction": TEXT,
    "is_first": tensor(dtype="bool"),
}
FRACTAL_STEP = {
    "observation": nested(
        {
            "image": IMAGE,
            "natural_language_instruction": TEXT,
            "base_pose_tool_reached": tensor(7),
            "gripper_closed": tensor(1),
        }
    ),
    "action": nested({"gripper_closedness_action": tensor(1), "rotation_delta": tensor(3), "world_vector": tensor(3)}),
}


def picture(episode: int, frame: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), (40 * episode, 30 * frame, 100), np.uint8)


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def numbers(episode: int, steps: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng([episode, seed]).random((steps, size), np.float32)


def bridge(episode: int, steps: int) -> dict:
    return {
        "steps/observation/image_0": [png(picture(episode, frame)) for frame in range(steps)],
        "steps/observation/image_1": [png(picture(9, frame)) for frame in range(steps)],
        "steps/observation/state": numbers(episode, steps, 7, 0).ravel(),
        "steps/action": numbers(episode, steps, 7, 1).ravel(),
        "steps/language_instruction": [f"lift cup {episode}".encode()] * steps,
        "steps/is_first": np.arange(steps) == 0,
    }


def fractal(episode: int, steps: int) -> dict:
    return {
        "steps/observation/image": [png(picture(episode, frame)) for frame in range(steps)],
        "steps/observation/natural_language_instruction": [b"pick can"] * steps,
        "steps/observation/base_pose_tool_reached": numbers(episode, steps, 7, 0).ravel(),
        "steps/observation/gripper_closed": numbers(episode, steps, 1, 1).ravel(),
        "steps/action/world_vector": numbers(episode, steps, 3, 2).ravel(),
        "steps/action/rotation_delta": numbers(episode, steps, 3, 3).ravel(),
        "steps/action/gripper_closedness_action": numbers(episode, steps, 1, 4).ravel(),
    }


def write(folder: Path, step: dict, make, lengths: list[int] | None = None) -> Path:
    """Two files with two episodes and one; ``lengths`` are what dataset_info.json says of them."""
    folder.mkdir()
    features = nested({"steps": {"pythonClassName": "Dataset", "sequence": {"feature": nested(step)}}})
    (folder / "features.json").write_text(json.dumps(features))
    split = {"name": "train"} | ({"shardLengths": list(map(str, lengths))} if lengths else {})
    (folder / "dataset_info.json").write_text(json.dumps({"name": "small", "splits": [split]}))
    for shard, episodes in enumerate(((0, 1), (2,))):
        path = folder / f"small-train.tfrecord-{shard:05d}-of-00002"
        path.write_bytes(b"".join(record(encode(make(episode, LENGTHS[episode]))) for episode in episodes))
    return folder


def opened(root: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("rlds/out", root=root, video_backend="pyav")


@given(st.binary(max_size=40) | st.integers(500, 3000).map(lambda size: np.random.default_rng(size).bytes(size)))
@settings(deadline=None, max_examples=60)
def test_checksums_are_crc32c(data):
    assert crc32c(data) == slow_crc32c(data)


def test_the_checksum_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4, and the catalogue's check value
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_examples_give_their_values_back():
    values = {"a": [b"x", b""], "b": np.array([1.5, -2], np.float32), "c": np.array([-1, 2**40, 0])}
    found = example(encode(values))
    assert found["a"] == values["a"]
    np.testing.assert_array_equal(found["b"], values["b"])
    np.testing.assert_array_equal(found["c"], values["c"])


def test_every_flipped_byte_is_noticed(tmp_path):
    path, whole = tmp_path / "a.tfrecord", record(b"some content")
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="damaged"):
            list(records(path))


@pytest.mark.parametrize("cut", [1, 13, 20, 27])
def test_a_cut_file_is_noticed(tmp_path, cut):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(record(b"some content")[:cut])
    with pytest.raises(DataError, match="ends"):
        list(records(path))


def test_bridge_becomes_a_lerobot_dataset(tmp_path, capsys):
    folder, out = write(tmp_path / "tfds", BRIDGE_STEP, bridge), tmp_path / "out"
    assert main(["from-rlds", str(folder), "--out", str(out), "--images"]) == 0
    dataset = opened(out)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, sum(LENGTHS), 5)
    assert dataset.features["action"]["names"] == list(BRIDGE.action_names)
    places = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    for index, (episode, frame) in enumerate(places):
        row = dataset[index]
        assert (int(row["episode_index"]), int(row["frame_index"])) == (episode, frame)
        assert row["task"] == f"lift cup {episode}"
        np.testing.assert_array_equal(row["action"], numbers(episode, LENGTHS[episode], 7, 1)[frame])
        np.testing.assert_array_equal(row["observation.state"], numbers(episode, LENGTHS[episode], 7, 0)[frame])
        image = (row["observation.images.image_0"].numpy().transpose(1, 2, 0) * 255).round()
        np.testing.assert_array_equal(image, picture(episode, frame))


def test_fractal_puts_its_parts_in_order(tmp_path):
    folder, out = write(tmp_path / "tfds", FRACTAL_STEP, fractal), tmp_path / "out"
    assert main(["from-rlds", str(folder), "--out", str(out), "--images", "--episodes", "1", "--fps", "7"]) == 0
    dataset = opened(out)
    assert (dataset.num_episodes, dataset.fps) == (1, 7)
    parts = [numbers(0, 3, size, seed)[1] for size, seed in ((3, 2), (3, 3), (1, 4))]
    np.testing.assert_array_equal(dataset[1]["action"], np.concatenate(parts))
    assert dataset.features["observation.state"]["names"] == list(FRACTAL.state_names)


def test_another_camera_and_another_layout(tmp_path):
    folder = write(tmp_path / "tfds", BRIDGE_STEP, bridge)
    features = read_features(folder)
    assert choose(features, "auto", None) == BRIDGE
    assert choose(features, "auto", "image_1").image == "steps/observation/image_1"
    with pytest.raises(DataError, match="no camera 'image_7'"):
        choose(features, "auto", "image_7")
    with pytest.raises(DataError, match="layout fractal needs"):
        choose(features, "fractal", None)


def test_an_unknown_layout_is_read_by_common_names(tmp_path):
    step = {
        "observation": nested({"cam": IMAGE, "state": tensor(2)}),
        "action": tensor(2),
        "language_instruction": TEXT,
    }
    found = choose(read_features(write(tmp_path / "tfds", step, bridge)), "auto", None)
    assert (found.action, found.action_names, found.state_names) == (
        ("steps/action",),
        ("action_0", "action_1"),
        ("state_0", "state_1"),
    )
    assert (found.image, found.fps) == ("steps/observation/cam", None)


def damage(folder: Path) -> None:
    path = folder / "small-train.tfrecord-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage, "Record 0 of"),
        (lambda folder: (folder / "small-train.tfrecord-00001-of-00002").unlink(), "lacks 1 of 2 files"),
        (lambda folder: (folder / "features.json").unlink(), "no TFDS folder"),
        (lambda folder: (folder / "features.json").write_text("{"), "features.json is damaged"),
    ],
)
def test_damage_leaves_nothing_behind(tmp_path, capsys, harm, words):
    folder, out = write(tmp_path / "tfds", BRIDGE_STEP, bridge), tmp_path / "made" / "out"
    harm(folder)
    assert main(["from-rlds", str(folder), "--out", str(out), "--images"]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def fingerprint(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256(path) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("videos", [False, True])
def test_an_interrupted_conversion_goes_on_to_the_same_bytes(tmp_path, videos):
    folder = write(tmp_path / "tfds", BRIDGE_STEP, bridge)
    whole, out = tmp_path / "whole" / "out", tmp_path / "cut" / "out"
    assert convert(folder, whole, videos=videos, part=1) == 3

    def stop(count: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, out, videos=videos, part=1, done=stop)
    assert not out.exists()
    seen: list[int] = []
    assert convert(folder, out, videos=videos, part=1, done=seen.append) == 3
    assert seen == [2, 3]  # the first episode is not converted again
    assert fingerprint(out) == fingerprint(whole)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert opened(out).num_frames == sum(LENGTHS)


def convert_until_killed(folder: Path, out: Path) -> None:
    convert(folder, out, videos=False, part=1, done=lambda count: count == 3 and os.kill(os.getpid(), signal.SIGKILL))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_killed_conversion_goes_on(tmp_path):
    folder, out = write(tmp_path / "tfds", BRIDGE_STEP, bridge), tmp_path / "made" / "out"
    import lerobot.datasets.lerobot_dataset  # noqa: F401  once: a child that imports it anew takes ten seconds

    child = multiprocessing.get_context("fork").Process(target=convert_until_killed, args=(folder, out), daemon=True)
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    seen: list[int] = []
    assert convert(folder, out, videos=False, part=1, done=seen.append) == 3
    assert seen == [3]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert opened(out).num_frames == sum(LENGTHS)


def test_other_options_start_afresh(tmp_path):
    folder, out = write(tmp_path / "tfds", BRIDGE_STEP, bridge), tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        convert(folder, out, videos=False, part=1, done=lambda count: count < 2 or 1 // 0)
    seen: list[int] = []
    assert convert(folder, out, videos=False, part=1, fps=9, episodes=1, done=seen.append) == 1
    assert seen == [1]
    assert opened(out).fps == 9


def test_a_full_disk_is_said_and_the_finished_parts_stay(tmp_path, monkeypatch, capsys):
    folder, out = write(tmp_path / "tfds", BRIDGE_STEP, bridge), tmp_path / "made" / "out"
    monkeypatch.setattr(converting.convert, "__kwdefaults__", converting.convert.__kwdefaults__ | {"part": 1})
    real, calls = converting._add, iter(range(9))

    def full(dataset, frames):
        if next(calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(dataset, frames)

    monkeypatch.setattr(converting, "_add", full)
    assert main(["from-rlds", str(folder), "--out", str(out), "--images"]) == 2
    assert "full" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr(converting, "_add", real)
    seen: list[int] = []
    assert convert(folder, out, videos=False, done=seen.append) == 3
    assert seen == [2, 3]


def test_a_file_that_ends_between_two_records_is_noticed(tmp_path):
    folder = write(tmp_path / "tfds", BRIDGE_STEP, bridge, lengths=[3, 1])
    with pytest.raises(DataError, match="00000-of-00002 has 2 records, but 3 by"):
        convert(folder, tmp_path / "out", videos=False)


def test_odd_files_beside_the_shards(tmp_path):
    folder = write(tmp_path / "tfds", BRIDGE_STEP, bridge, lengths=[2, 1])
    (folder / "small-train.tfrecord-00001-of-00002.crdownload").write_bytes(b"half")
    assert len(shards(folder, "train")) == 2
    (folder / "small-train.tfrecord-00000-of-00003").write_bytes(b"")
    with pytest.raises(DataError, match="files of 2 sets"):
        shards(folder, "train")
    with pytest.raises(DataError, match="no files"):
        shards(folder, "val")


def test_an_empty_shard_holds_no_episode(tmp_path):
    folder = write(tmp_path / "tfds", BRIDGE_STEP, bridge)
    (folder / "small-train.tfrecord-00000-of-00002").write_bytes(b"")
    assert [one.where.split("/")[-1] for one in episodes_of(shards(folder, "train"), "train")] == [
        "small-train.tfrecord-00001-of-00002"
    ]
    (folder / "small-train.tfrecord-00001-of-00002").write_bytes(b"")
    with pytest.raises(DataError, match="no episode"):
        convert(folder, tmp_path / "out", videos=False)


# Feature structures: by the catalogue of TFDS (fractal20220817_data 0.1.0, bridge 0.1.0), and for Bridge v2 by scripts
# that read and build bridge_dataset 1.0.0: name -> shape of numbers, "image", or "text".
PUBLISHED = {
    "fractal": {
        "action": {
            "base_displacement_vector": (2,),
            "base_displacement_vertical_rotation": (1,),
            "gripper_closedness_action": (1,),
            "rotation_delta": (3,),
            "terminate_episode": (3,),
            "world_vector": (3,),
        },
        "observation": {
            "base_pose_tool_reached": (7,),
            "gripper_closed": (1,),
            "gripper_closedness_commanded": (1,),
            "height_to_bottom": (1,),
            "image": "image",
            "natural_language_embedding": (512,),
            "natural_language_instruction": "text",
        },
    },
    "bridge_oxe": {
        "action": {"open_gripper": (), "rotation_delta": (3,), "terminate_episode": (), "world_vector": (3,)},
        "observation": {
            "image": "image",
            "natural_language_embedding": (512,),
            "natural_language_instruction": "text",
            "state": (7,),
        },
    },
    "bridge": {
        "action": (7,),
        "language_embedding": (512,),
        "language_instruction": "text",
        "observation": {**{f"image_{number}": "image" for number in range(4)}, "state": (7,)},
    },
}


def described(value) -> dict:
    if isinstance(value, dict):
        return nested({name: described(child) for name, child in value.items()})
    return {"image": IMAGE, "text": TEXT}[value] if isinstance(value, str) else tensor(*value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_datasets_are_recognised(tmp_path, name):
    folder = write(tmp_path / "tfds", {key: described(value) for key, value in PUBLISHED[name].items()}, lambda *_: {})
    assert choose(read_features(folder), "auto", None) == LAYOUTS[name]
