"""A finished model under other options than it was made with: those that leave its weights' meaning alone only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.utils.import_utils import register_third_party_plugins
from pixelvla_third_party.adapter import build as build_third_party
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core import checkpoint
from pixelvla_core.checkpoint.begin import Beginning
from pixelvla_core.checkpoint.load import running_recipe
from pixelvla_core.cli.main import main
from pixelvla_core.errors import CheckpointError, RecipeError
from pixelvla_core.evaluate.plan import prepare
from pixelvla_core.model.assemble import assemble
from pixelvla_core.plugins import PluginManager
from pixelvla_core.recipe import load_recipe
from pixelvla_core.wrap import wrap

FAST, FEW = "backbone.options.sampler=fast", "backbone.options.policy.num_inference_steps=2"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint around pi0, and one around a base whose options declare nothing of the kind."""
    folder = tmp_path_factory.mktemp("switch")
    tiny_pi0.write(folder / "pi0_base")
    build_third_party(ThirdPartyConfig(), weights=None).save_base(folder / "third_party_base")
    parts = {"pi0": ["head/native", "backbone.options.fixed_noise=true"], "third_party": ["head/l1"]}
    for base, layers in parts.items():
        wrap(base, str(folder / f"{base}_base"), folder / base, ["encoder/pixelvla", *layers, "lora.rank=2"])
    return {base: folder / base for base in parts}


def chunk(folder: Path, *overrides: str) -> torch.Tensor:
    model = checkpoint.load(folder, overrides=overrides).model
    batch = model.collate(tiny_pi0.samples(2), train=False)
    with torch.no_grad():
        return model.predict(batch)


def test_the_sampler_is_switched_and_the_chunk_stays_the_same(wrapped):
    loaded = checkpoint.load(wrapped["pi0"], overrides=[FAST])
    assert loaded.model.backbone.sampler == loaded.recipe.backbone.options["sampler"] == "fast"
    assert checkpoint.load(wrapped["pi0"]).model.backbone.sampler == "lerobot"
    torch.testing.assert_close(chunk(wrapped["pi0"], FAST), chunk(wrapped["pi0"]), atol=1e-5, rtol=0)


def test_the_number_of_steps_is_switched(wrapped):
    few = checkpoint.load(wrapped["pi0"], overrides=[FEW]).model
    assert few.base.config.num_inference_steps == 2
    assert not torch.allclose(chunk(wrapped["pi0"], FEW), chunk(wrapped["pi0"]), atol=1e-4)


def test_only_what_differs_counts(wrapped):
    registry = PluginManager.load().registry
    same = ["backbone.options.sampler=lerobot", "backbone.options.cameras=[front]"]
    assert running_recipe(wrapped["pi0"], registry, same)[1] == {}
    assert running_recipe(wrapped["pi0"], registry, [FAST, FEW])[1] == {
        "backbone.options.sampler": "fast",
        "backbone.options.policy.num_inference_steps": 2,
    }


@pytest.mark.parametrize(
    ("base", "override", "words"),
    [
        (
            "pi0",
            "backbone.options.cameras=[wrist]",
            r"cameras cannot be changed .* run it: .*options\.sampler",
        ),
        ("pi0", "backbone.options.policy.chunk_size=3", r"policy\.chunk_size cannot be changed"),
        ("pi0", "lora.rank=4", r"lora\.rank cannot be changed"),
        ("pi0", "evaluate.episodes=3", r"says nothing of the model"),
        ("pi0", "backbone.options.sampler=quick", r"sampler is 'quick'; expected lerobot or fast"),
        ("pi0", "fast", r"expected KEY=VALUE"),
        ("third_party", "splice=in_text", r"splice cannot be changed .* nothing, for no part"),
    ],
)
def test_what_would_be_another_model_is_refused(base, override, words, wrapped):
    with pytest.raises(RecipeError, match=words) as found:
        checkpoint.load(wrapped[base], overrides=[override])
    assert "\n" not in str(found.value)


def test_an_evaluation_refuses_before_it_begins(wrapped, tmp_path):
    registry = PluginManager.load().registry
    with pytest.raises(RecipeError, match=r"head\.name.* cannot be changed"):
        prepare(wrapped["pi0"], tmp_path / "eval", "x", registry, {"env": "tabletop"}, ["head=l1"])
    assert not (tmp_path / "eval").exists()


def test_a_run_may_start_with_another_sampler_but_with_no_other_state(wrapped):
    registry = PluginManager.load().registry
    path, start = wrapped["pi0"] / "recipe.yaml", f"start={wrapped['pi0']}"
    recipe = load_recipe(path, [start, FAST, FEW])
    model = assemble(recipe, registry=registry)
    Beginning.of(recipe).load(model, registry)
    assert model.backbone.sampler == "fast"
    with pytest.raises(CheckpointError, match="made of other parts"):
        Beginning.of(load_recipe(path, [start, "backbone.options.state=false"])).load(model, registry)


def test_lerobots_policy_is_switched_too_and_stays_so_when_saved(wrapped, tmp_path):
    register_third_party_plugins()
    given = {"chunk_size": tiny_pi0.HORIZON, "n_action_steps": 1, "device": "cpu"}
    config = make_policy_config("pixelvla", checkpoint=str(wrapped["pi0"]), overrides=[FAST], **given)
    policy = get_policy_class("pixelvla")(config)
    assert policy.model.backbone.sampler == "fast"
    policy.save_pretrained(tmp_path / "saved")
    again = type(policy).from_pretrained(tmp_path / "saved")
    assert again.config.overrides == [FAST]
    given = PreTrainedConfig.from_pretrained(tmp_path / "saved", cli_overrides=[f'--overrides=["{FEW}"]'])
    few = type(policy).from_pretrained(tmp_path / "saved", config=given)
    assert few.model.base.config.num_inference_steps == 2
    assert again.model.backbone.sampler == "fast"


@pytest.mark.gl
@pytest.mark.slow
def test_pixelvla_eval_switches_and_keeps_such_episodes_apart(tmp_path, capsys):
    run, out = tmp_path / "mini", tmp_path / "fast"
    assert main(["wrap", "--base", "pi0", "--weights", "mini", "--out", str(run), "head/native"]) == 0
    few = ["--env", "tabletop", "--task", "pick", "--split", "visual_matching", "--episodes", "1", "--workers", "1"]
    assert main(["eval", str(run), *few, "--out", str(out), FAST, "backbone.options.fixed_noise=true"]) == 0
    results = json.loads((out / "results.json").read_text())
    wanted = {"backbone.options.fixed_noise": True, "backbone.options.sampler": "fast"}
    assert results["method"]["switched"] == wanted
    assert not results["episodes"][0]["failure_reason"]
    assert main(["eval", str(run), *few, "--out", str(out)]) == 2
    assert "different protocols" in capsys.readouterr().err
