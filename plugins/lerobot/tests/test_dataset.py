"""The lerobot dataset against LeRobot's own reading, and against datasets that are damaged for real."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cups import FPS, HEIGHT, LENGTHS, WIDTH, image, mask
from PIL import Image
from pixelvla_lerobot.config import LeRobotConfig
from pixelvla_lerobot.prompting import deictic, mix_of

from pixelvla_core.annotations.episodes import EpisodeNote
from pixelvla_core.cli.main import main
from pixelvla_core.contract import Gripper, Rotation
from pixelvla_core.data.dataset import Dataset
from pixelvla_core.errors import ContractError, DataError, RecipeError
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.recipe import compose

FRAMES = sum(LENGTHS)
PLACES = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]


def sample(dataset, index: int, seed: int = 0, horizon: int = 4, **options):
    return dataset.sample(index, horizon=horizon, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_samples_are_what_lerobot_reads(recorded, load, kind):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    horizon = 4
    times = {"action": [step / FPS for step in range(horizon)]}
    theirs = LeRobotDataset("me/cups", root=recorded[kind], delta_timestamps=times, video_backend="pyav")
    ours = load(recorded[kind])
    assert isinstance(ours, Dataset)
    assert len(ours) == len(theirs) == FRAMES
    for index in range(FRAMES):
        item, found = theirs[index], sample(ours, index, horizon=horizon)
        wanted = (item["observation.images.front"].permute(1, 2, 0) * 255).round().byte().numpy()
        np.testing.assert_array_equal(found.images["front"], wanted)
        np.testing.assert_array_equal(found.actions, item["action"].numpy())
        np.testing.assert_array_equal(found.action_valid, ~item["action_is_pad"].numpy())
        np.testing.assert_array_equal(found.state, item["observation.state"].numpy())
        assert found.instruction == item["task"]
        assert found.key == "{}/ep{}/frame{}".format(kind, *PLACES[index])
        assert ours.frame_key(index) == "ep{}/frame{}".format(*PLACES[index])


def test_stored_images_are_the_recorded_ones(recorded, load):
    ours = load(recorded["images"])
    for index in (0, 5, 6, 21):
        np.testing.assert_array_equal(sample(ours, index).images["front"], image(*PLACES[index]))


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_frames_read_directly_are_those_of_the_store(recorded, load, cache, kind):
    direct = load(recorded[kind], frames="direct", image_size=32)
    assert not list(cache.rglob("frames.bin"))
    stored = load(recorded[kind], image_size=32)
    for index in range(0, FRAMES, 3):
        np.testing.assert_array_equal(sample(direct, index).images["front"], sample(stored, index).images["front"])


@pytest.mark.parametrize("frames", ["stored", "direct"])
def test_videos_are_read_without_a_word_about_torchcodec(recorded, load, caplog, frames):
    """Which LeRobot would try first, and report at length where the system has no FFmpeg."""
    assert sample(load(recorded["videos"], frames=frames), 3).images["front"].shape == (HEIGHT, WIDTH, 3)
    assert "torchcodec" not in caplog.text


def test_a_frame_read_directly_names_its_damage(copied, load):
    root = copied("videos")
    video(root).write_bytes(b"")
    ours = load(root, frames="direct")
    with pytest.raises(DataError, match=r"episode 1 cannot be read"):
        sample(ours, LENGTHS[0])


def test_another_camera_and_size(recorded, load):
    ours = load(recorded["images"], camera="observation.images.wrist", image_size=28)
    assert ours.camera == "wrist"
    flipped = Image.fromarray(np.ascontiguousarray(image(1, 2)[::-1]))
    wanted = np.asarray(flipped.resize((28, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(sample(ours, LENGTHS[0] + 2).images["wrist"], wanted)


def test_a_sample_may_be_changed_without_changing_the_store(recorded, load):
    ours = load(recorded["images"])
    sample(ours, 0).images["front"][:] = 0
    np.testing.assert_array_equal(sample(ours, 0).images["front"], image(0, 0))


def test_the_second_opening_needs_no_lerobot(recorded, load, cache):
    load(recorded["videos"])
    code = (
        "import sys\n"
        "from pixelvla_lerobot.dataset import LeRobotSamples\n"
        "from pixelvla_lerobot.config import LeRobotConfig\n"
        f"dataset = LeRobotSamples(LeRobotConfig(root={str(recorded['videos'])!r}))\n"
        "print(len(dataset), 'lerobot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(FRAMES), "False"]


def test_the_contract_is_read_off_the_data(recorded, load):
    contract = load(recorded["images"]).contract()
    assert contract.names == ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
    assert contract.gripper == Gripper(index=6, open=1.0, closed=0.0)
    assert contract.rotation == Rotation(kind="euler_xyz", start=3, delta=True)
    assert (contract.fps, contract.camera, contract.mask[6]) == (5.0, "front", False)
    assert contract.fingerprint == load(recorded["images"]).fingerprint


def test_what_the_options_declare_wins(recorded, load):
    contract = load(recorded["images"], gripper_open=0.0, gripper_closed=1.0, rotation="axis_angle_delta").contract()
    assert contract.gripper.open == 0.0
    assert contract.rotation.kind == "axis_angle"


def test_a_model_of_another_fps_refuses_the_data(recorded, load, copied):
    root = copied("images")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": 10}))
    with pytest.raises(ContractError, match=r"fps: 5.0 in the checkpoint, 10.0 in the data"):
        load(recorded["images"]).contract().check_compatible(load(root).contract())


def test_a_model_of_another_action_refuses_the_data(recorded, load):
    mine = load(recorded["images"]).contract()
    with pytest.raises(ContractError, match="Actions have 6 dimensions"):
        mine.normalize(np.zeros((3, 6)))


def test_the_fingerprint_belongs_to_the_content(recorded, load, copied):
    root = copied("images")
    before = load(recorded["images"]).fingerprint
    assert load(root).fingerprint == before
    with next((root / "data").rglob("*.parquet")).open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    from pixelvla_lerobot.source import fingerprint

    assert fingerprint(root) != before


def test_other_annotations_at_the_same_place_are_other_data(recorded, load, annotate):
    root = recorded["images"]
    bare, folder = load(root), annotate(root)
    options = {"annotations": str(folder), "prompts": {"none": 1.0, "box": 1.0}, "allow_missing": True}
    first = load(root, **options)
    assert load(root, **options).fingerprint == first.fingerprint != bare.fingerprint
    assert first.contract().fingerprint == bare.fingerprint  # the actions' statistics are those of the data
    shutil.rmtree(folder)
    annotate(root, hide=((0, 0),))
    assert load(root, **options).fingerprint not in (first.fingerprint, bare.fingerprint)


def test_episodes_can_be_chosen(recorded, load):
    ours = load(recorded["images"], episodes=[2, 0])
    assert [ours.frame_key(index) for index in (0, 6)] == ["ep0/frame0", "ep2/frame0"]
    assert len(ours) == LENGTHS[0] + LENGTHS[2]
    assert sample(ours, 5).action_valid.tolist() == [True, False, False, False]
    with pytest.raises(DataError, match="no episode 7; it has 0 to 2"):
        load(recorded["images"], episodes=[7])


KINDS = {"point": Point, "line": Line, "box": Box, "mask": Mask}


@pytest.mark.parametrize("kind", list(KINDS))
def test_prompts_point_at_the_target_on_the_first_frame_and_masks_follow_it(recorded, load, annotate, kind):
    ours = load(recorded["images"], annotations=str(annotate(recorded["images"])), prompts={kind: 1.0})
    for index, (episode, frame) in enumerate(PLACES):
        found = sample(ours, index, seed=index)
        (prompt,) = found.prompts["front"]
        assert isinstance(prompt, KINDS[kind])
        assert _inside(prompt, mask(episode, 0))
        np.testing.assert_array_equal(found.masks["front"], mask(episode, frame)[None])


def _inside(prompt, target: np.ndarray) -> bool:
    rows, columns = np.nonzero(target)
    if isinstance(prompt, Mask):
        return bool((prompt.array == target).all())
    if isinstance(prompt, Box):
        edges = columns.min() / WIDTH, rows.min() / HEIGHT, (columns.max() + 1) / WIDTH, (rows.max() + 1) / HEIGHT
        return (prompt.x0, prompt.y0, prompt.x1, prompt.y1) == edges
    places = [(prompt.x, prompt.y)] if isinstance(prompt, Point) else prompt.vertices
    return all(target[int(y * HEIGHT), int(x * WIDTH)] for x, y in places)


def test_prompts_on_the_current_frame_and_masks_of_the_first(recorded, load, annotate):
    sidecar = str(annotate(recorded["images"]))
    ours = load(
        recorded["images"], annotations=sidecar, prompts={"mask": 1}, prompt_frame="current", mask_frame="first"
    )
    found = sample(ours, 4)
    assert (found.prompts["front"][0].array == mask(0, 4)).all()
    np.testing.assert_array_equal(found.masks["front"][0], mask(0, 0))


def test_kinds_and_masks_come_as_often_as_asked(recorded, load, annotate):
    options = {"prompts": {"none": 1.0, "point+box": 1.0}, "mask_probability": 0.5}
    ours = load(recorded["images"], annotations=str(annotate(recorded["images"])), **options)
    drawn = [sample(ours, index % FRAMES, seed=index) for index in range(1000)]
    prompted = [each for each in drawn if each.prompts]
    assert all(not each.masks for each in drawn if not each.prompts)
    assert all([type(prompt) for prompt in each.prompts["front"]] == [Point, Box] for each in prompted)
    assert len(prompted) / 1000 == pytest.approx(0.5, abs=0.06)
    assert sum(bool(each.masks) for each in prompted) / len(prompted) == pytest.approx(0.5, abs=0.08)


def test_a_target_is_pointed_at_instead_of_named_as_often_as_asked(recorded, load, annotate):
    folder = str(annotate(recorded["images"]))
    data = load(recorded["images"], annotations=folder, prompts={"none": 1.0, "point": 1.0}, deictic=0.5)
    plain = load(recorded["images"], annotations=folder, prompts={"none": 1.0, "point": 1.0})
    pointed = []
    for seed in range(200):
        sample = data.sample(0, horizon=1, rng=np.random.default_rng(seed))
        if not sample.prompts:
            assert sample.instruction == plain.sample(0, horizon=1, rng=np.random.default_rng(seed)).instruction
        else:
            pointed.append("this object" in sample.instruction)
    assert 0.35 < np.mean(pointed) < 0.65


@pytest.mark.parametrize(
    ("instruction", "target", "wanted"),
    [
        ("pick the red cube", "red cube", "pick this object"),
        ("put the cube on the cube", "cube", "put this object on the cube"),
        ("stack cup on plate", "cup", "stack this object on plate"),
        ("open it", "drawer", "open it"),
        ("put the cupcake beside the cup", "cup", "put the cupcake beside this object"),
        ("Pick up a Red  Cube", "red cube", "Pick up this object"),
        ("open the drawer", "", "open the drawer"),
        ("pick the cup (small).", "cup (small)", "pick this object."),
    ],
)
def test_deictic_words(instruction, target, wanted):
    assert deictic(instruction, target) == wanted


def test_the_generator_alone_decides_with_and_without_images(recorded, load, annotate):
    ours = load(recorded["images"], annotations=str(annotate(recorded["images"])), mask_probability=0.5)
    for index in range(FRAMES):
        one, two = np.random.default_rng(index), np.random.default_rng(index)
        first = ours.sample(index, horizon=4, rng=one)
        second = ours.sample(index, horizon=4, rng=two, images=False)
        assert second.images == {}
        assert one.random() == two.random()
        assert repr(first.prompts) == repr(second.prompts)
        assert first.masks.keys() == second.masks.keys()


def test_without_annotations_samples_are_text_only(recorded, load):
    found = sample(load(recorded["images"]), 3)
    assert (found.prompts, found.masks) == ({}, {})


def test_prompts_without_annotations_are_refused(recorded, load):
    assert load(recorded["images"], prompts={"none": 1.0, "box": 0.0})
    with pytest.raises(RecipeError, match="no annotations to make them from"):
        load(recorded["images"], prompts={"none": 1.0, "box": 1.0})


def test_the_words_about_missing_annotations_work():
    """Weights in an override are merged into the recipe's, so that ``prompts={none: 1}`` would not be enough."""
    text_only = ["data.options.root=here", "data.options.annotations=null", "backbone.weights=mini"]
    asked = compose(["mini/pixelvla"], [*text_only, "data.options.prompts={none: 1}"]).data.options
    with pytest.raises(RecipeError, match="asks for point") as said:
        mix_of(LeRobotConfig(**asked))
    advice = re.search(r"data\.options\.prompts=\S+?(?=\.)", str(said.value)).group()
    options = compose(["mini/pixelvla"], [*text_only, advice]).data.options
    assert mix_of(LeRobotConfig(**options)).weights == {"none": 1.0}


def test_a_target_hidden_at_first_has_no_prompt_on_the_current_frame_yet(recorded, load, annotate):
    sidecar = annotate(recorded["images"], hide=((0, 0),))
    ours = load(recorded["images"], annotations=str(sidecar), prompts={"point": 1.0}, prompt_frame="current")
    assert sample(ours, 0).prompts == {}
    assert sample(ours, 1).prompts


def test_hidden_targets_keep_the_latest_mask_before_them(recorded, load, annotate):
    sidecar = annotate(recorded["images"], hide=((0, 0), (0, 3), (0, 4)))
    ours = load(recorded["images"], annotations=str(sidecar), prompts={"mask": 1})
    assert (sample(ours, 4).prompts["front"][0].array == mask(0, 1)).all(), "frame 0 shows nothing to point at"
    np.testing.assert_array_equal(sample(ours, 4).masks["front"][0], mask(0, 2))
    assert sample(ours, 0).masks == {}


def test_frames_without_annotation_are_refused_or_allowed(recorded, load, annotate):
    sidecar = str(annotate(recorded["images"], skip=((1, 4), (1, 5))))
    with pytest.raises(DataError, match=rf"2 of {FRAMES} frames .* the first is episode 1, frame 4"):
        load(recorded["images"], annotations=sidecar)
    assert len(load(recorded["images"], annotations=sidecar, allow_missing=True)) == FRAMES
    assert len(load(recorded["images"], annotations=sidecar, episodes=[0, 2])) == LENGTHS[0] + LENGTHS[2]
    assert len(load(recorded["images"], annotations=sidecar, prompts={"none": 1})) == FRAMES


def test_an_episode_without_a_usable_annotation_is_refused_with_the_status(recorded, load, annotate):
    sidecar = str(annotate(recorded["images"], hide=tuple((2, frame) for frame in range(LENGTHS[2]))))
    with pytest.raises(DataError, match=r"status 'ok' .*7 absent.*episode 2, frame 0"):
        load(recorded["images"], annotations=sidecar)
    ours = load(recorded["images"], annotations=sidecar, allow_missing=True, prompts={"point": 1})
    assert sample(ours, FRAMES - 1).prompts == {}
    assert sample(ours, 0).prompts


def test_episodes_that_the_annotation_discarded_are_left_out_or_used_as_text(recorded, load, annotate, caplog):
    notes = tuple(EpisodeNote(episode=e, kept=e != 1, reason="tiny: 3 pixels" if e == 1 else "") for e in range(3))
    sidecar = str(annotate(recorded["images"], hide=tuple((1, frame) for frame in range(LENGTHS[1])), notes=notes))
    caplog.set_level(logging.INFO)
    ours = load(recorded["images"], annotations=sidecar, prompts={"point": 1})
    assert len(ours) == LENGTHS[0] + LENGTHS[2]
    assert ours.frame_key(LENGTHS[0]) == "ep2/frame0"
    assert "1 episodes that the annotation discarded are left out (tiny 1)" in caplog.text
    assert all(sample(ours, index).prompts for index in range(len(ours)))
    assert len(load(recorded["images"], annotations=sidecar, episodes=[1, 2])) == LENGTHS[2]
    with pytest.raises(DataError, match=r"No episode of .* is left to train on"):
        load(recorded["images"], annotations=sidecar, episodes=[1])
    text = load(recorded["images"], annotations=sidecar, prompts={"point": 1}, discarded="text")
    assert len(text) == FRAMES
    assert sample(text, LENGTHS[0]).prompts == {}
    with pytest.raises(RecipeError, match=r"discarded is .texts.\. Did you mean .text."):
        LeRobotConfig(root=".", discarded="texts")


def test_annotations_of_other_data_or_another_camera_are_refused(recorded, load, annotate):
    foreign = annotate(recorded["images"])
    with pytest.raises(DataError, match="the data changed, or it is another dataset"):
        load(recorded["videos"], annotations=str(foreign))
    with pytest.raises(DataError, match="are of camera 'front', the samples of 'wrist'"):
        load(recorded["images"], annotations=str(foreign), camera="wrist")


def test_a_missing_camera_lists_the_cameras(recorded, load):
    with pytest.raises(DataError, match=r"no camera 'frnt'. Did you mean 'front'. It has front, wrist"):
        load(recorded["images"], camera="frnt")


def video(root: Path) -> Path:
    return next((root / "videos" / "observation.images.front").rglob("*.mp4"))


def truncate(content: bytearray) -> bytearray:
    return content[: len(content) * 3 // 4]


def zero(content: bytearray) -> bytearray:
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    return content


def nothing(content: bytearray) -> bytearray:
    return bytearray()


@pytest.mark.parametrize("damage", [truncate, zero, nothing])
def test_a_corrupt_video_is_named_with_its_episode(copied, load, damage):
    root = copied("videos")
    path = video(root)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    with pytest.raises(DataError, match=r"The images of episode \d cannot be read: .*front.*mp4 is damaged"):
        load(root)


def test_episodes_of_a_corrupt_video_can_be_left_out(copied, load, caplog):
    root = copied("videos")
    path = video(root)
    path.write_bytes(truncate(bytearray(path.read_bytes())))
    with caplog.at_level(logging.WARNING, "pixelvla"):
        ours = load(root, skip_corrupt=True)
    assert "cannot be read and are left out" in caplog.text
    assert {ours.frame_key(index).split("/")[0] for index in range(len(ours))} in ({"ep0"}, {"ep0", "ep1"})
    assert sample(ours, 0).images["front"].any()


def test_a_missing_video_is_named(copied, load):
    root = copied("videos")
    video(root).unlink()
    with pytest.raises(DataError, match=r"front.*mp4|cannot open the dataset"):
        load(root)


def _rewrite(root: Path, column: str, change) -> None:
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    values = change(table[column].to_pylist())
    pq.write_table(
        table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type)), path
    )


def test_actions_that_are_nan_are_named(copied, load, capsys):
    def spoil(values):
        values[LENGTHS[0] + 4][2] = float("nan")
        return values

    root = copied("images")
    _rewrite(root, "action", spoil)
    with pytest.raises(DataError, match=r"1 actions of images are NaN or infinite, the first at episode 1, frame 4"):
        load(root)
    assert main(["data", "lint", str(root)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the first at episode 1, frame 4" in said
    assert "`lerobot-edit-dataset`: 1." in said


def test_a_cache_that_cannot_be_used_is_not_blamed_on_the_dataset(copied, load, monkeypatch):
    import datasets
    import huggingface_hub

    root = copied("images")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (root.parent / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root.parent / "file" / "cache")
    with pytest.raises(DataError, match=r"cannot use .*file/cache for it: Not a directory\. Set HF_HOME"):
        load(root)


def test_rows_out_of_order_are_refused(copied, load):
    root = copied("images")
    _rewrite(root, "frame_index", lambda values: [*values[:2], values[3], values[2], *values[4:]])
    with pytest.raises(DataError, match="out of order: episode 0, frame 3 follows episode 0, frame 1"):
        load(root)


def test_a_damaged_image_is_named_with_its_episode(copied, load):
    def spoil(values):
        content = values[8]["bytes"]
        values[8]["bytes"] = content[: len(content) // 2]
        return values

    root = copied("images")
    _rewrite(root, "observation.images.front", spoil)
    with pytest.raises(DataError, match=r"episode 1 cannot be read: .*parquet"):
        load(root)


def test_truncated_rows_are_refused(copied, load):
    root = copied("images")
    path = next((root / "data").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot open the dataset"):
        load(root)


@pytest.mark.parametrize("folder", ["data", "meta/episodes", "videos"])
def test_a_dataset_without_its_files_is_refused_before_anything_is_downloaded(copied, load, folder):
    import shutil

    root = copied("videos")
    shutil.rmtree(root / folder)
    with pytest.raises(DataError, match=f"no files under {folder}/"):
        load(root)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is no LeRobotDataset"), ("{", "is damaged"), ('{"codebase_version": "v2.1"}', "Convert it with")],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path, load, content, words):
    if content:
        (tmp_path / "d" / "meta").mkdir(parents=True)
        (tmp_path / "d" / "meta" / "info.json").write_text(content)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "d")


def test_a_damaged_cache_is_made_again(recorded, load, cache):
    load(recorded["images"])
    (path,) = cache.rglob("columns.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert len(load(recorded["images"])) == FRAMES


def test_suspicious_actions_are_logged(copied, load, caplog):
    root = copied("images")
    _rewrite(root, "action", lambda values: [[0.25, *value[1:]] for value in values])
    with caplog.at_level(logging.WARNING, "pixelvla"):
        load(root)
    assert "images: warning: dx: is always 0.25" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither root nor repo_id"),
        ({"root": "x", "prompt_frame": "frist"}, "Did you mean 'first'"),
        ({"root": "x", "mask_probability": 1.5}, "from 0 to 1"),
        ({"root": "x", "image_size": 0}, "image_size"),
        ({"root": "x", "workers": 0}, "workers"),
        ({"root": "x", "prompts": {"pont": 1.0}}, "Did you mean 'point'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        LeRobotConfig(**options)
