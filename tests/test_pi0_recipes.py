"""The very same recipes on pi0: every shipped one with its backbone layer exchanged, and the commands end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "mini"))
import start_pi0
from pixelvla_pi0.sizes import Sizes

from pixelvla_core import checkpoint
from pixelvla_core.cli.main import main
from pixelvla_core.errors import PluginError, RecipeError
from pixelvla_core.plugins import PluginManager
from pixelvla_core.prompts import Point
from pixelvla_core.recipe import Recipe, compose, find_recipes
from pixelvla_core.seam.batch import Sample
from pixelvla_core.train.run import train

pytestmark = pytest.mark.gl
TOGETHER = ("mini/", "pixelvla_", "libero_", "ablation/")
WHOLE = [
    file.name
    for file in find_recipes()
    if file.name.startswith(TOGETHER) and compose([file.name], allow_missing=True).run
]
CONVENTIONS = {
    "camera": "front",
    "gripper_open": 1.0,
    "gripper_closed": 0.0,
    "rotation": "euler_xyz_delta",
    "orientation": "upright",
}
SMALL = {"steps": 2, "batch_size": 2, "warmup_steps": 0, "save_every": 2, "log_every": 1, "cache": "none"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the tabletop, its annotations, and a tiny pi0 of its words."""
    folder = tmp_path_factory.mktemp("pi0")
    demos = folder / "demos"
    assert main(["record", str(demos), "--episodes", "2", "--seed", "1", "--workers", "1", "--task", "pick"]) == 0
    assert main(["annotations", "oracle", f"{demos}.masks.jsonl", str(demos), str(folder / "notes")]) == 0
    start_pi0.write(demos, folder / "weights", sizes=Sizes(), image=56)
    return folder


def given(work: Path, stages: list[str]) -> list[str]:
    """Overrides for few steps on the recording, which says itself what the tabletop's conventions are."""
    few = [f"stages.{stage}.{key}={value}" for stage in stages for key, value in SMALL.items()]
    data = {"root": work / "demos", "annotations": work / "notes", "cache": work / "cache", **CONVENTIONS}
    where = [f"data.options.{key}={value}" for key, value in data.items()]
    return [f"backbone.weights={work / 'weights'}", "backbone.dtype=float32", "log.trackers=[]", *few, *where]


def on_pi0(name: str, work: Path) -> Recipe:
    """A shipped recipe with its backbone layer exchanged, on the recording."""
    alone = compose([name], allow_missing=True)
    layers = [name] if "pi0" in name else [name, "backbone/pi0_mini"]
    if alone.backbone is None:
        layers = ["backbone/pi0_mini", "data/tabletop", name]
    return compose(layers, [*given(work, alone.run), *(["start=null"] if alone.start else [])])


def test_the_list_of_recipes_is_not_empty():
    assert {"mini/pixelvla", "mini/sft", "pixelvla_openvla", "pixelvla_pi0", "libero_openvla", "ablation/ft"} <= set(
        WHOLE
    )


@pytest.mark.parametrize("name", ["pixel_160k_openvla", "pixel_160k_pi0"])
def test_the_papers_two_datasets_train_on_pi0(name, work, tmp_path):
    """The recording stands for both: a mixture whose parts call their camera otherwise, as Fractal and Bridge do."""
    alone = compose([name], allow_missing=True)
    layers = [name, "backbone/pi0_mini"]
    few = [override for override in given(work, alone.run) if not override.startswith("data.")]
    both = {"root": work / "demos", "annotations": work / "notes", "cache": work / "cache", "camera": "front"}
    both |= {"action_names": "null", "image_size": 56, "rule": alone.action.normalization}
    parts = [f"data.options.parts.{part}.options.{k}={v}" for part in ("fractal", "bridge") for k, v in both.items()]
    recipe = compose(layers, [*few, *parts, f"action.normalization={alone.action.normalization}"])
    assert recipe.head.name == ("native" if "pi0" in name else "l1")
    assert recipe.backbone.options["state"] is ("pi0" not in name)
    assert checkpoint.read_manifest(train(recipe, tmp_path / "run")).stages == tuple(alone.run)


@pytest.mark.parametrize("name", WHOLE)
def test_every_shipped_recipe_trains_on_pi0(name, work, tmp_path):
    recipe = on_pi0(name, work)
    assert recipe.backbone.name == "pi0"
    last = train(recipe, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    assert len(losses) == SMALL["steps"] * len(recipe.run)
    assert checkpoint.read_manifest(last).stages == tuple(recipe.run)


def test_stage_cat_with_pi0s_own_head_is_refused_with_what_to_do(work):
    with pytest.raises(
        RecipeError, match=r"stages\.cat\.train lists 'head'.*the head 'native' is the base's own.*as cat"
    ):
        compose(["mini/pixelvla", "backbone/pi0_mini", "head/native"], given(work, ["cat", "pue"]))


def test_lora_can_go_on_the_expert_as_well(work, tmp_path):
    recipe = compose(["mini/sft_pi0"], [*given(work, ["sft"]), "lora.groups=[llm, expert]"])
    manifest = checkpoint.read_manifest(train(recipe, tmp_path / "run"))
    assert any(".gemma_expert." in name for name in manifest.lora["targets"])
    assert any(".language_model." in name for name in manifest.lora["targets"])


@pytest.mark.parametrize("cache", ["features", "hidden"])
def test_what_is_frozen_can_be_cached(cache, work, tmp_path):
    stage = "cat" if cache == "hidden" else "pue"
    overrides = [*given(work, ["cat", "pue"]), f"run=[{stage}]", f"stages.{stage}.cache={cache}"]
    recipe = compose(["mini/pixelvla", "backbone/pi0_mini"], [*overrides, f"stages.{stage}.steps=30"])
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "last").exists()


def test_gradient_checkpointing_changes_no_loss(work, tmp_path):
    losses = []
    for on in ("false", "true"):
        override = [*given(work, ["sft"]), f"stages.sft.grad_checkpointing={on}", "lora.groups=[llm, expert]"]
        train(compose(["mini/sft_pi0"], override), tmp_path / on)
        lines = (tmp_path / on / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_wrap_train_and_evaluate_end_to_end(work, tmp_path, capsys):
    weights, wrapped, run = str(work / "weights"), tmp_path / "wrapped", tmp_path / "run"
    assert (
        main(["wrap", "--base", "pi0", "--weights", weights, "--out", str(wrapped), "head/native", "contract.fps=5"])
        == 0
    )
    assert "7 dimensions" in capsys.readouterr().out
    assert main(["train", "mini/pixelvla_pi0", *given(work, ["pue"]), "--out", str(run)]) == 0
    few = ["--episodes", "1", "--workers", "1", "--prompts", "point", "--task", "pick", "--split", "visual_matching"]
    assert main(["eval", str(run), *few]) == 0
    (record,) = (run / "eval").rglob("results.json")
    assert json.loads(record.read_text())
    model = checkpoint.load(run).model
    image = np.zeros((112, 112, 3), np.uint8)
    sample = Sample(images={"front": image}, instruction="pick up the red cube", state=np.zeros(8), key="a")
    plain, marked = (
        model.act([sample]),
        model.act([Sample(**{**vars(sample), "prompts": {"front": (Point(0.3, 0.4),)}})]),
    )
    assert plain.shape == (1, 8, 7)
    assert not np.allclose(plain, marked)
    assert np.array_equal(plain, model.act([sample]))


def test_the_mini_is_offered_by_name_and_built_small(work, tmp_path):
    from pixelvla_pi0_mini.plugin import FOLDER

    registry = PluginManager.load().registry
    assert ("mini" in registry.weights_names("pi0")) == FOLDER.is_dir()
    if not FOLDER.is_dir():
        with pytest.raises(PluginError, match="no weights that a plugin ships"):
            registry.locate("pi0", "mini")
    parameters, words = start_pi0.write(work / "demos", tmp_path / "mini")
    assert 2e6 < parameters < 3e6
    assert words < start_pi0.SIZES.vocabulary
