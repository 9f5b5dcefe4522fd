"""The pi0 weights that ship: what their provenance says is true, and the model loads and acts."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from pixelvla_pi0_mini.plugin import FOLDER, pixelvla_weights
from pixelvla_tabletop.suite import CONTRACT

from pixelvla_core.api import PluginManager, Sample
from pixelvla_core.checkpoint import load
from pixelvla_core.evaluate.fit import check_fit
from pixelvla_core.wrap import wrap

LIMIT = 8 * 1000**2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pi0") / "wrapped"
    wrap("pi0", "mini", folder, ["head/native", "backbone.options.fixed_noise=true"])
    return load(folder).model


def sample(instruction: str) -> Sample:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return Sample(images={"front": image}, instruction=instruction, state=np.zeros(8, np.float32), key="one")


def test_the_plugin_offers_them_by_name():
    (weights,) = pixelvla_weights()
    assert (weights.backbone, weights.name, weights.folder) == ("pi0", "mini", FOLDER)
    assert PluginManager.load().registry.locate("pi0", "mini") == str(FOLDER)


def test_the_folder_is_small_and_the_weights_are_those_that_the_provenance_describes():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LIMIT
    assert not [file for file in files if file.suffix not in (".json", ".safetensors")]
    provenance = json.loads((FOLDER / "provenance.json").read_text(encoding="utf-8"))
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() == provenance["sha256"]
    assert set(provenance["stages"]) == {"act", "pretrain"}
    assert provenance["metrics"]
    assert {"python", "torch", "lerobot"} <= set(provenance["versions"])


def test_it_knows_what_its_actions_mean_in_the_tabletop(model, recwarn):
    assert model.contract.unknown == ()
    check_fit(model.contract, CONTRACT)
    assert not [found for found in recwarn if "contract" in str(found.message)]


def test_it_acts_and_listens(model):
    pick, shut = (model.act([sample(text)])[0] for text in ("pick up the red cube", "close the drawer"))
    assert pick.shape == (8, 7)
    assert np.isfinite(pick).all()
    assert np.array_equal(pick, model.act([sample("pick up the red cube")])[0])
    assert np.abs(pick - shut).max() > 1e-3
