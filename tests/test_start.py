"""``start``: a run that begins with the weights of an earlier one."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import pixelvla_toy
import train_toy
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core import checkpoint
from pixelvla_core.checkpoint.begin import Beginning
from pixelvla_core.errors import CheckpointError, ContractError, RecipeError
from pixelvla_core.model.assemble import assemble
from pixelvla_core.plugins import GROUP, PluginManager
from pixelvla_core.train.run import train
from pixelvla_core.wrap import wrap

MANAGER = PluginManager(
    [*[entry for entry in entry_points(group=GROUP) if entry.name in ("core", "third_party")], pixelvla_toy]
)
REGISTRY = MANAGER.registry


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    build(ThirdPartyConfig(), weights=None).save_base(folder)
    return folder


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything of ours has learned."""
    out = tmp_path_factory.mktemp("first") / "run"
    run(out, f"backbone.weights={base}", "run=[pue]", "stages.pue.steps=1", "stages.pue.warmup_steps=0")
    return out


def run(out: Path, *overrides: str, resume: bool = False) -> Path:
    return train(train_toy.recipe(*overrides), out, resume, REGISTRY)


def delta(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "delta.safetensors")


def begin_from(model, recipe) -> tuple[str, ...]:
    return Beginning.of(recipe).load(model, REGISTRY)


def refused(first: Path, *overrides: str) -> str:
    recipe = train_toy.recipe(f"start={first}", *overrides)
    with pytest.raises(CheckpointError) as caught:
        begin_from(assemble(recipe, registry=REGISTRY), recipe)
    return str(caught.value)


def test_the_model_begins_with_every_weight_of_the_earlier_run(base: Path, first: Path) -> None:
    recipe = train_toy.recipe(f"start={first}", f"backbone.weights={base}")
    model = assemble(recipe, registry=REGISTRY)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert begin_from(model, recipe) == ()
    earlier = checkpoint.load(first, registry=REGISTRY).model.state_dict()
    assert all(torch.equal(tensor, earlier[name]) for name, tensor in model.state_dict().items())
    assert not all(torch.equal(tensor, fresh[name]) for name, tensor in earlier.items())


def test_a_run_trains_on_from_there_and_its_checkpoint_needs_the_earlier_one_no_more(
    base: Path, first: Path, tmp_path: Path, monkeypatch
) -> None:
    shutil.copytree(first, tmp_path / "first", symlinks=True)
    monkeypatch.chdir(tmp_path)
    given = (f"backbone.weights={base}", "start=first", "run=[cat]", "stages.cat.steps=2", "stages.cat.save_every=1")
    out = run(tmp_path / "second", *given)
    shutil.rmtree(tmp_path / "first")
    before, after = delta(first / "checkpoints" / "last"), delta(out)
    changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"head"}
    assert checkpoint.load(out, registry=REGISTRY).recipe.start == str(tmp_path / "first")
    monkeypatch.chdir(first)
    shutil.rmtree(out)
    run(tmp_path / "second", *given[:1], f"start={tmp_path / 'first'}", *given[2:], resume=True)
    assert all(torch.equal(tensor, delta(out)[name]) for name, tensor in after.items())


def test_what_was_trained_of_the_base_before_stays_in_every_checkpoint(base: Path, tmp_path: Path) -> None:
    given = (f"backbone.weights={base}", "stages.cat.objective=head", "run=[cat]", "stages.cat.steps=1")
    run(tmp_path / "a", *given, "stages.cat.train=[llm]")
    out = run(tmp_path / "b", *given, f"start={tmp_path / 'a'}")
    run(tmp_path / "b", *given, f"start={tmp_path / 'a'}", "stages.cat.steps=2", resume=True)
    assert checkpoint.read_manifest(out).trained == ("llm",)
    for folder in (out, tmp_path / "b"):
        loaded = checkpoint.load(folder, registry=REGISTRY)
        assert loaded.manifest.trained == ("llm",)
        for name, tensor in delta(tmp_path / "a" / "checkpoints" / "last").items():
            assert torch.equal(loaded.model.state_dict()[name], tensor) or name.startswith("head.")


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("lora.rank=2", r"lora ((4, 16.0, ['llm']) there, (2, 16.0, ['llm']) here)"),
        ("prompt_encoder=overlay", "prompt_encoder"),
        ("pixel_encoder=null", "pixel_encoder"),
        ("splice=in_text", "splice (after_image there, in_text here)"),
        ("action.horizon=2", "action.horizon (4 there, 2 here)"),
        ("backbone.options.width=32", "backbone"),
    ],
)
def test_other_parts_are_refused_by_name(base: Path, first: Path, override: str, word: str) -> None:
    weights = "backbone.weights=null" if "width" in override else f"backbone.weights={base}"
    drop = ["stages.pue.train=[prompt, head, lora]"] if override == "pixel_encoder=null" else []
    drop = ["stages.pue.train=[pixel, head, lora]"] if override == "prompt_encoder=overlay" else drop
    assert word in refused(first, weights, override, *drop)


def test_another_base_is_refused(first: Path, tmp_path: Path) -> None:
    build(ThirdPartyConfig(seed=7), weights=None).save_base(tmp_path / "other")
    assert "another model or revision" in refused(first, f"backbone.weights={tmp_path / 'other'}")
    assert "Give backbone.weights=" in refused(first)


def test_a_base_that_is_whole_in_the_checkpoint_takes_no_other_weights(base: Path, tmp_path: Path) -> None:
    run(tmp_path / "whole", "run=[cat]", "stages.cat.steps=1")
    assert "backbone.weights=null" in refused(tmp_path / "whole", f"backbone.weights={base}")
    recipe = train_toy.recipe(f"start={tmp_path / 'whole'}", "backbone.options.seed=0")
    begin_from(assemble(recipe, registry=REGISTRY), recipe)


def test_what_is_no_checkpoint_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        run(tmp_path / "out", f"backbone.weights={base}", f"start={tmp_path / 'nothing'}")


def test_a_damaged_checkpoint_is_refused(base: Path, first: Path, tmp_path: Path) -> None:
    folder = shutil.copytree((first / "checkpoints" / "last").resolve(), tmp_path / "damaged")
    (folder / "delta.safetensors").write_bytes((folder / "delta.safetensors").read_bytes()[:-9])
    assert "damaged" in refused(folder, f"backbone.weights={base}")


def test_a_run_goes_on_only_with_its_own_start(base: Path, first: Path, tmp_path: Path) -> None:
    given = (f"backbone.weights={base}", "run=[cat]", "stages.cat.steps=1")
    run(tmp_path / "out", *given, f"start={first}")
    with pytest.raises(RecipeError, match="start differ"):
        run(tmp_path / "out", *given, resume=True)


# --- the action contract ------------------------------------------------------------------------------------------


def test_data_that_mean_something_else_are_refused_until_that_is_declared(
    base: Path, first: Path, tmp_path, capsys
) -> None:
    given = (f"backbone.weights={base}", f"start={first}", "run=[cat]", "stages.cat.steps=1")
    other = ("data.options.fps=10", "data.options.orientation=rotate180")
    with pytest.raises(ContractError, match=r"fps: 5.0 in the start, 10.0 in the data; orientation: 'upright' in"):
        run(tmp_path / "a", *given, *other)
    assert not (tmp_path / "a" / "checkpoints").exists()
    out = run(tmp_path / "b", *given, *other, "start_changes=[fps,orientation]")
    contract = checkpoint.load(out, registry=REGISTRY).model.contract
    assert (contract.fps, contract.orientation) == (10.0, "rotate180")
    assert "fps: 5.0 in the start, 10.0 in the data" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(RecipeError, match=r"start_changes is 'fsp'.*Did you mean 'fps'"):
        train_toy.recipe("start_changes=[fsp]")


def test_data_that_normalise_otherwise_than_the_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"action.normalization is 'q99', but the data normalise actions by 'min_max'"
    ):
        run(tmp_path / "a", "data.options.rule=min_max")
    run(tmp_path / "b", "data.options.rule=min_max", "action.normalization=min_max", "run=[cat]", "stages.cat.steps=1")


# --- from what wrap wrote -----------------------------------------------------------------------------------------

STATED = ("backbone.name=stated", "run=[pue]", "stages.pue.steps=2", "stages.pue.warmup_steps=0", "lora.rank=2")


def wrapped(base: Path, out: Path, *facts: str) -> Path:
    layers = ["encoder/pixelvla", "head/l1", "action.horizon=4", *facts]
    return wrap("stated", str(base), out, layers, manager=MANAGER)


def trained_from(base: Path, start: Path, out: Path, *overrides: str) -> checkpoint.Loaded:
    run(out, *STATED, f"backbone.weights={base}", f"start={start}", *overrides)
    return checkpoint.load(out, registry=REGISTRY)


def test_a_wrapped_base_is_trained_with_fresh_lora_and_what_was_stated_of_it(
    base: Path, tmp_path: Path, capsys
) -> None:
    start = wrapped(base, tmp_path / "w", "contract.key=near", "contract.fps=5", "contract.orientation=upright")
    capsys.readouterr()
    loaded = trained_from(base, start, tmp_path / "run")
    contract = loaded.model.contract
    assert (contract.dataset, contract.statistics.q99) == ("near", (0.5,) * 7)
    assert (contract.names[0], contract.fps, contract.unknown) == ("x", 5.0, ())
    assert loaded.manifest.lora["rank"] == 2
    before, after = delta(start), delta(loaded.folder)
    assert set(after) - set(before) == {name for name in after if ".lora_" in name} != set()
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())
    said = " ".join(capsys.readouterr().out.split())
    assert "The base's statistics of 'near' are kept" in said
    assert "farther in x (-0.5 to 0.5, the data 0 to 1)" in said


def test_a_wrapped_base_takes_the_datas_statistics_where_that_is_declared(base: Path, tmp_path: Path) -> None:
    start = wrapped(base, tmp_path / "w", "contract.key=wide")
    loaded = trained_from(base, start, tmp_path / "run", "start_changes=[statistics]")
    assert (loaded.model.contract.dataset, loaded.model.contract.statistics.q99) == ("squares", (1.0,) * 7)


def test_what_was_stated_of_a_wrapped_base_is_compared_with_the_data(base: Path, tmp_path: Path) -> None:
    start = wrapped(base, tmp_path / "w", "contract.key=near", "contract.fps=3")
    with pytest.raises(ContractError, match=r"fps: 3 in the start, 5.0 in the data"):
        trained_from(base, start, tmp_path / "run")


def test_a_base_without_statistics_is_wrapped_and_trained_too(base: Path, tmp_path: Path) -> None:
    layers = ["encoder/pixelvla", "head/l1", "action.horizon=4"]
    start = wrap("third_party", str(base), tmp_path / "w", layers, manager=MANAGER)
    loaded = trained_from(base, start, tmp_path / "run", "backbone.name=third_party")
    assert loaded.model.contract.dataset == "squares"


def test_a_trained_checkpoint_without_lora_gets_none_on_the_way(base: Path, tmp_path: Path) -> None:
    given = (f"backbone.weights={base}", "run=[cat]", "stages.cat.steps=1")
    run(tmp_path / "a", *given, "lora.rank=0", "stages.pue.train=[pixel, prompt, head]")
    assert "lora (None there" in refused(tmp_path / "a", *given)
