"""Checkpoint folders: round trip, strictness, and every kind of damage."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import train_toy
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig
from pixelvla_toy import Squares, SquaresConfig

from pixelvla_core import builtin, checkpoint
from pixelvla_core.checkpoint import identity, manifest
from pixelvla_core.checkpoint.tensors import write_tensors
from pixelvla_core.errors import CheckpointError
from pixelvla_core.files import point_link, sha256
from pixelvla_core.model.assemble import assemble
from pixelvla_core.plugins import GROUP, PluginManager
from pixelvla_core.train.state import Position, optimizer_tensors, write_state

REGISTRY = train_toy.registry()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    build(ThirdPartyConfig(seed=3), weights=None).save_base(folder)
    return folder


def make(base: Path | None, *overrides: str):
    weights = [] if base is None else [f"backbone.weights={base}"]
    recipe = train_toy.recipe(*weights, *overrides)
    model = assemble(recipe, registry=REGISTRY)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad or base is None:
                parameter.add_(0.01)
    return model, recipe


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory):
    """Everything that a run writes: weights, contract and training state."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    model, recipe = make(base, "evaluate.tracker=hold")
    model.contract = Squares(SquaresConfig()).contract()
    moments = optimizer_tensors(model, torch.optim.AdamW(model.head.parameters()))
    position = Position(stage=1, step=1, data="f", world=1)
    checkpoint.save(
        folder,
        model,
        recipe,
        checkpoint.describe(model, recipe, REGISTRY),
        stages=["cat"],
        step=7,
        extra=lambda partial: write_state(partial, position, moments),
    )
    return folder, model, recipe


@pytest.fixture
def copy(saved, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "checkpoint"))


def load(folder: Path, **keywords) -> checkpoint.Loaded:
    return checkpoint.load(folder, registry=REGISTRY, **keywords)


def seal(folder: Path) -> None:
    """Write the manifest anew, so that only what is inside the files is wrong."""
    old = checkpoint.read_manifest(folder)
    manifest.write_manifest(folder, replace(old, files=manifest.digests(folder)))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_round_trip(saved) -> None:
    folder, model, recipe = saved
    loaded = load(folder)
    assert same(loaded.model, model)
    assert loaded.recipe == recipe
    assert loaded.model.contract == model.contract is not None
    assert (loaded.manifest.stages, loaded.manifest.step) == (("cat",), 7)
    assert not loaded.model.training


def test_delta_holds_ours_and_nothing_of_the_frozen_base(saved) -> None:
    names = load_file(saved[0] / "delta.safetensors")
    assert any(name.startswith("pixel_encoder.") for name in names)
    assert "head.queries_HD" in names
    assert all(".lora_" in name for name in names if name.startswith("base."))


def test_manifest_says_what_the_model_is_made_of(saved) -> None:
    data = json.loads((saved[0] / "manifest.json").read_text())
    assert data["format"] == 1
    assert data["parts"]["backbone"]["distribution"] == "pixelvla-third-party"
    assert data["parts"]["pixel_encoder"]["options"]["levels"] == [0.25, 0.5, 0.75, 1.0]
    assert data["lora"]["rank"] == 4
    assert "blocks.0.attention.q" in data["lora"]["targets"]
    assert list(data) == sorted(data)


def test_nothing_is_pickled(saved) -> None:
    assert {file.suffix for file in saved[0].iterdir()} == {".json", ".yaml", ".safetensors"}


def test_where_the_system_refuses_a_file_its_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.safetensors"
    with pytest.raises(OSError, match="No such file") as caught:
        write_tensors(path, {"a": torch.zeros(1)})
    assert caught.value.filename == str(path)


def test_files_can_be_read_by_whom_the_umask_lets(base: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        model, recipe = make(base)
        checkpoint.save(tmp_path / "c", model, recipe, checkpoint.describe(model, recipe, REGISTRY))
    finally:
        os.umask(before)
    assert (tmp_path / "c" / "delta.safetensors").stat().st_mode & 0o777 == 0o640


def test_trained_groups_of_the_base_are_stored(base: Path, tmp_path: Path) -> None:
    model, recipe = make(base)
    with torch.no_grad():
        model.base.projector.weight.mul_(2)
    header = checkpoint.describe(model, recipe, REGISTRY)
    checkpoint.save(tmp_path / "c", model, recipe, header, trained=["projector"])
    assert same(load(tmp_path / "c").model, model)


def test_random_base_is_stored_whole(tmp_path: Path) -> None:
    model, recipe = make(None)
    header = checkpoint.describe(model, recipe, REGISTRY)
    checkpoint.save(tmp_path / "c", model, recipe, header)
    assert same(load(tmp_path / "c").model, model)


def test_full_checkpoint_needs_no_base(base: Path, tmp_path: Path) -> None:
    moving = Path(shutil.copytree(base, tmp_path / "moving"))
    model, recipe = make(moving)
    header = checkpoint.describe(model, recipe, REGISTRY)
    checkpoint.save(tmp_path / "c", model, recipe, header, full=True)
    shutil.rmtree(moving)
    assert same(load(tmp_path / "c").model, model)


READ = ("manifest.json", "delta.safetensors", "recipe.yaml", "stats.json", "state.json")
FILES = (*READ, "optimizer.safetensors")


def test_these_are_all_files_of_a_checkpoint(saved) -> None:
    assert {file.name for file in saved[0].iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(name: str, where: float, bit: int, copy: Path) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    place = int(where * len(content))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    try:
        with pytest.raises(CheckpointError):
            checkpoint.verify(copy)
    finally:
        content[place] ^= 1 << bit
        path.write_bytes(content)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_noticed(name: str, keep: float, copy: Path) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError):
        load(copy)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_optimizer_keeps_a_run_from_going_on_but_a_model_loads(damage: str, saved, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", saved, (2, 10))
    path = run / "checkpoints" / "step-000010" / "optimizer.safetensors"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-9])
    assert load(run).folder.name == "step-000010"
    with pytest.warns(UserWarning, match="optimizer.safetensors"):
        assert checkpoint.newest(run, for_training=True).name == "step-000002"


@pytest.mark.parametrize("name", READ)
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.") if name != "manifest.json" else "neither"):
        load(copy)


def _drop(tensors: dict) -> None:
    del tensors["head.queries_HD"]


def _add(tensors: dict) -> None:
    tensors["head.surplus"] = torch.zeros(2)


def _reshape(tensors: dict) -> None:
    tensors["head.queries_HD"] = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [(_drop, r"1 missing \(head.queries_HD\)"), (_add, r"1 not expected"), (_reshape, r"\(2, 3\) instead of")],
)
def test_tensors_that_do_not_fit_are_refused(change: Callable[[dict], None], words: str, copy: Path) -> None:
    tensors = load_file(copy / "delta.safetensors")
    change(tensors)
    save_file(tensors, copy / "delta.safetensors")
    seal(copy)
    with pytest.raises(CheckpointError, match=words):
        load(copy)


def test_a_pickle_is_never_opened(copy: Path) -> None:
    (copy / "delta.safetensors").write_bytes(pickle.dumps({"head.queries_HD": [1.0]}))
    seal(copy)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load(copy)


def test_another_format_is_refused(copy: Path) -> None:
    old = checkpoint.read_manifest(copy)
    manifest.write_manifest(copy, replace(old, format=99))
    with pytest.raises(CheckpointError, match="format 99"):
        load(copy)


def test_a_missing_part_names_its_distribution(saved) -> None:
    with pytest.raises(CheckpointError, match="pip install pixelvla-third-party"):
        checkpoint.load(saved[0], registry=PluginManager([builtin]).registry)


def test_a_model_loads_where_only_its_own_parts_are_installed(saved) -> None:
    """As on a robot: neither the dataset nor the parts of an evaluation that the recipe names are there."""
    plugins = [entry for entry in entry_points(group=GROUP) if entry.name == "third_party"]
    registry = PluginManager([*plugins, Parts()]).registry
    assert registry.names("dataset") == registry.names("environment") == registry.names("tracker") == []
    assert same(checkpoint.load(saved[0], registry=registry).model, saved[1])


class Parts:
    """Core's encoders and heads, and nothing else of it."""

    pixelvla_pixel_encoders = staticmethod(builtin.pixelvla_pixel_encoders)
    pixelvla_prompt_encoders = staticmethod(builtin.pixelvla_prompt_encoders)
    pixelvla_action_heads = staticmethod(builtin.pixelvla_action_heads)


@pytest.mark.parametrize("what", ["checkpoint", "run"])
def test_no_file_is_compared_twice(what: str, saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def counting(path: Path) -> str:
        compared.append(path.name)
        return sha256(path)

    folder = saved[0] if what == "checkpoint" else run_with(tmp_path / "run", saved, (2,))
    monkeypatch.setattr(manifest, "sha256", counting)
    load(folder)
    assert sorted(compared) == sorted(set(READ) - {"manifest.json"})


def test_another_base_is_refused(saved, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build(ThirdPartyConfig(seed=4), weights=None).save_base(other)
    with pytest.raises(CheckpointError, match="another model or revision"):
        load(saved[0], base_weights=str(other))


def test_a_moved_base(saved, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, recipe = saved
    gone = replace(recipe, backbone=replace(recipe.backbone, weights=str(tmp_path / "gone")))
    header = checkpoint.describe(model, recipe, REGISTRY)
    header = replace(header, base={**header.base, "weights": str(tmp_path / "gone")})
    checkpoint.save(tmp_path / "c", model, gone, header)
    with pytest.raises(CheckpointError, match=identity.VARIABLE):
        load(tmp_path / "c")
    monkeypatch.setenv(identity.VARIABLE, str(base))
    assert same(load(tmp_path / "c").model, model)


def test_identity_of_a_large_file_reads_its_size_header_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "WHOLE", 1000)
    monkeypatch.setattr(identity, "BLOCK", 16)
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(5000.0)}, path)
    first = identity.file_identity(path)
    assert identity.file_identity(path) == first
    save_file({"b": torch.arange(5000.0)}, path)
    assert identity.file_identity(path) != first
    save_file({"a": torch.arange(5000.0) + 1}, path)
    assert identity.file_identity(path) != first


def run_with(folder: Path, saved, steps: tuple[int, ...]) -> Path:
    for step in steps:
        shutil.copytree(saved[0], folder / "checkpoints" / f"step-{step:06d}")
    point_link(folder / "checkpoints" / "last", f"step-{steps[-1]:06d}")
    return folder


def test_a_run_is_loaded_from_its_newest_sound_checkpoint(saved, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", saved, (2, 10))
    assert load(run).folder.name == "step-000010"
    (run / "checkpoints" / "step-000010" / "delta.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="damaged"):
        assert load(run).folder.name == "step-000002"


def test_a_copy_of_a_checkpoint_within_a_run_is_not_looked_at(saved, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", saved, (2,))
    shutil.copytree(saved[0], run / "checkpoints" / "step-000003 (copy)")
    assert load(run).folder.name == "step-000002"


def test_a_run_without_a_sound_checkpoint(saved, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", saved, (2,))
    (run / "checkpoints" / "step-000002" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no usable checkpoint"), pytest.warns(UserWarning, match="damaged"):
        load(run)


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        load(tmp_path)
