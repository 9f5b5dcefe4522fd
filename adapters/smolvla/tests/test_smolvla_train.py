"""The same recipes: layers that every base takes, trained for a few steps on a small SmolVLA, saved and loaded."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
import squares_with_state

from pixelvla_core import checkpoint
from pixelvla_core.errors import RecipeError
from pixelvla_core.plugins import GROUP, PluginManager, Registry
from pixelvla_core.recipe import compose
from pixelvla_core.train.run import train

SMALL = ["lora.rank=4", "log.trackers=[]", "backbone.options.cameras=[front]", "data.options.rule=mean_std"]
PUE = [f"stages.pue.{key}" for key in ("steps=3", "batch_size=2", "log_every=1", "save_every=3")]
CAT = [line.replace(".pue.", ".cat.") for line in PUE]
FLOAT32 = ["backbone.dtype=float32", "stages.cat.precision=float32", "stages.pue.precision=float32"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    """Core, this adapter, and the dataset."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name in ("core", "smolvla")]
    return PluginManager([*found, squares_with_state]).registry


def run(out: Path, registry: Registry, folder: Path, layers: list[str], overrides: list[str]) -> list[dict]:
    """Compose shipped layers around the small checkpoint, as a recipe file does, and train; the lines of the log."""
    file = out.with_suffix(".yaml")
    file.write_text(f"layers: [{', '.join(['backbone/smolvla', *layers])}]\ndata: squares\n")
    own = [f"backbone.weights={folder}", *SMALL, *overrides]
    train(compose([str(file)], own, registry=registry), out, False, registry)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_pixel_tuning_with_smolvlas_own_expert_in_the_layers_own_bfloat16(tmp_path, registry, folder):
    rows = run(tmp_path / "own", registry, folder, ["encoder/pixelvla", "head/native", "stage/pue"], PUE)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_base_without_statistics_of_states_reads_them_by_the_datas(tmp_path, registry, folder, samples):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "policy_preprocessor.json").unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No statistics of the robot's state")
        run(tmp_path / "own", registry, bare, ["encoder/pixelvla", "head/native", "stage/pue"], [*PUE, *FLOAT32[::2]])
        loaded = checkpoint.load(tmp_path / "own", registry=registry)
        state = np.linspace(-1, 1, 7, dtype=np.float32)  # that of every sample, so that it is centred
        batch = loaded.model.collate([replace(samples[0], state=state)], train=False)
    assert np.allclose(loaded.model.contract.state.mean, state, atol=1e-6)
    assert np.allclose(batch.inputs["state"], 0, atol=1e-6)


def test_a_finished_model_may_be_given_fewer_steps_of_its_solver(tmp_path, registry, folder):
    run(tmp_path / "own", registry, folder, ["head/native", "stage/pue"], ["stages.pue.train=[llm]", *PUE[:2]])
    changes = ["backbone.options.policy.num_steps=3", "backbone.options.fixed_noise=true"]
    model = checkpoint.load(tmp_path / "own", registry=registry, overrides=changes).model
    assert model.backbone.module.config.num_steps == 3
    with pytest.raises(RecipeError, match=r"policy\.chunk_size cannot be changed.*fixed_noise.*num_steps"):
        checkpoint.load(tmp_path / "own", registry=registry, overrides=["backbone.options.policy.chunk_size=9"])


def test_both_stages_with_the_papers_head_and_what_is_saved_is_loaded(tmp_path, registry, folder, samples):
    layers = ["encoder/pixelvla", "head/l1", "stage/two_stage"]
    rows = run(tmp_path / "l1", registry, folder, layers, [*CAT, *PUE, *FLOAT32])
    assert [row["stage"] for row in rows] == ["cat"] * 3 + ["pue"] * 3
    delta = load_file(max((tmp_path / "l1").rglob("delta.safetensors")))
    assert any(".lora_B." in name and tensor.any() for name, tensor in delta.items())
    observed = [replace(samples[0], images={"front": samples[0].images["front"]})]
    one, two = (checkpoint.load(tmp_path / "l1", registry=registry).model.act(observed) for _ in range(2))
    assert np.isfinite(one).all()
    assert np.array_equal(one, two)
