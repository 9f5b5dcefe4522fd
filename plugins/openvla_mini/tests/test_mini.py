"""The weights that ship: what their provenance says is true, and the model loads and acts."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

import numpy as np
import pytest
from pixelvla_openvla_mini.plugin import FOLDER, pixelvla_weights
from pixelvla_tabletop.suite import CONTRACT

from pixelvla_core.checkpoint.load import read_contract
from pixelvla_core.evaluate.fit import check_fit
from pixelvla_core.plugins import PluginManager
from pixelvla_core.wrap import wrap

LIMIT = 8 * 1000**2
FILES = {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "dataset_statistics.json"}


@pytest.fixture(scope="module")
def provenance() -> dict:
    return json.loads((FOLDER / "provenance.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    from pixelvla_openvla import OpenVLA

    return OpenVLA.from_pretrained(FOLDER, dtype="float32")


def test_the_plugin_offers_them_by_name():
    (weights,) = pixelvla_weights()
    assert (weights.backbone, weights.name, weights.folder) == ("openvla", "mini", FOLDER)
    registry = PluginManager.load().registry
    assert "mini" in registry.weights_names("openvla")
    assert registry.locate("openvla", "mini") == str(FOLDER)


def test_the_folder_is_whole_and_small():
    sizes = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert set(sizes) >= FILES
    assert sum(sizes.values()) <= LIMIT
    assert not [name for name in sizes if not name.endswith((".json", ".safetensors"))]


def test_the_weights_are_those_that_the_provenance_describes(provenance):
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert digest == provenance["sha256"]
    assert provenance["stages"]
    assert provenance["steps"] == sum(stage["steps"] for stage in list(provenance["stages"].values())[-1:])
    assert provenance["seed"] >= 0
    assert provenance["metrics"]
    assert {"python", "torch", "transformers", "pixelvla"} <= set(provenance["versions"])


def test_they_are_stored_in_bfloat16():
    from safetensors import safe_open

    with safe_open(FOLDER / "model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no dict
    assert kinds == {"BF16"}


def test_the_statistics_are_whole(model):
    (key,) = model.norm_stats
    statistics = model.norm_stats[key]["action"]
    assert key == "tabletop"
    assert {"q01", "q99", "min", "max", "mean", "std", "mask"} <= set(statistics)
    assert {len(values) for values in statistics.values()} == {7}
    assert np.all(np.array(statistics["min"]) <= np.array(statistics["q01"]))
    assert np.all(np.array(statistics["q01"]) < np.array(statistics["q99"]))
    assert statistics["mask"] == [True] * 6 + [False]


def test_it_acts_within_its_statistics(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    batch = model.inputs(list(images), ["pick up the red cube", "open the drawer"])
    actions = model.predict_action(**batch)
    statistics = model.norm_stats["tabletop"]["action"]
    assert actions.shape == (2, 7)
    assert np.isfinite(actions).all()
    low, high = (np.array(statistics[key][:6]) for key in ("q01", "q99"))
    assert np.all((low <= actions[:, :6]) & (actions[:, :6] <= high))
    assert np.array_equal(actions, model.predict_action(**batch))


def test_it_knows_the_words_of_its_prompts(model):
    ids, _ = model.tokenizer("pick up the red cube")
    assert model.tokenizer.tokenizer.token_to_id("<unk>") not in ids[1:]


def test_it_loads_with_the_versions_that_are_installed(provenance):
    assert provenance["versions"]["pixelvla"] == version("pixelvla")


def test_wrapped_it_knows_what_its_actions_mean_in_the_tabletop(tmp_path, recwarn):
    wrap("openvla", "mini", tmp_path / "wrapped", ["head/native"])
    contract = read_contract(tmp_path / "wrapped")
    assert contract.unknown == ()
    check_fit(contract, CONTRACT)
    assert not [found for found in recwarn if "contract" in str(found.message)]
