"""Weights are never downloaded; what is missing is said with the command that downloads it."""

from __future__ import annotations

import hashlib

import pytest
from pixelvla_segment.large import components
from pixelvla_segment.large.config import Sam2Config, VideoConfig
from pixelvla_segment.large.sam2 import Sam2
from pixelvla_segment.large.weights import find_weights

from pixelvla_core.api import CheckpointError, UserError

PARTS = [*components.segmenters(), *components.trackers(), *components.detectors()]


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("empty_hub")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.target.rpartition(':')[2]}")
def test_parts_without_weights_say_how_to_get_them_before_they_are_used(part, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Download (it|them): (hf download [\w.-]+/[\w.-]+|curl )|pip install"):
        part.build(part.load_config()()).identity()


@pytest.mark.usefixtures("empty_hub")
def test_the_command_has_the_revision():
    with pytest.raises(CheckpointError, match=r"hf download facebook/sam2.1-hiera-tiny --revision v2"):
        find_weights("facebook/sam2.1-hiera-tiny", "v2", "*.pt")


def test_a_snapshot_of_the_hub_is_found_with_its_revision(tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "0123456789" * 4
    snapshot = tmp_path / "models--own--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    refs = tmp_path / "models--own--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = find_weights("own/tiny", None, "*.safetensors")
    assert (found.revision, found.files) == (commit, ("model.safetensors",))
    digest = hashlib.sha256(b"weights").hexdigest()
    assert found.identity()["sha256"] == {"model.safetensors": digest}
    with pytest.raises(CheckpointError, match="hf download own/tiny"):
        find_weights("own/tiny", None, "*.pt")  # a snapshot that was downloaded in part


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no \*.pt"):
        Sam2(Sam2Config(model=str(tmp_path))).identity()
    with pytest.raises(CheckpointError, match="no folder and no id"):
        find_weights("no/such/thing", None, "*.pt")


def test_the_architecture_must_be_known(tmp_path):
    (tmp_path / "own.pt").write_bytes(b"")
    with pytest.raises(UserError, match="Set the option architecture"):
        Sam2(Sam2Config(model=str(tmp_path), device="cpu")).load()


def test_weights_of_another_architecture_are_refused(sam2_package_folder):
    config = Sam2Config(model=str(sam2_package_folder), architecture="configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    with pytest.raises(CheckpointError, match="does not fit"):
        Sam2(config).load()


def test_seeds_are_checked():
    with pytest.raises(ValueError, match="neither seeds nor a text"):
        VideoConfig(text="")


def test_options_of_recipes_make_seeds():
    from pixelvla_core.api import configure

    part = components.gripper_finders()[0]
    config = configure(part, {"seeds": [{"episode": 3, "point": [0.5, 0.25]}]}, "annotate.gripper.options")
    assert config.seeds[0].point == [0.5, 0.25]
    with pytest.raises(UserError, match="either point"):
        configure(part, {"seeds": [{"episode": 3}]}, "annotate.gripper.options")
