"""Composing recipes: which layer wins, what is refused, and with which words."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.component import Component
from pixelvla_core.errors import PluginError, RecipeError, suggest
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import PluginManager
from pixelvla_core.recipe import compose, find_recipes, load_recipe, save_recipe, split_arguments, to_yaml

LAYERS = {
    "base": "backbone: acme\nhead: l1\n",
    "stage": """# Two stages
stages:
  cat: {train: [head], steps: 100, lr: 5e-4}
  pue: {train: [head], steps: 1e5}
run: [cat]
""",
    "whole": "layers: [base, stage]\nstages: {cat: {lr: 1e-3}}\n",
    "deeper/own": "layers: [../whole.yaml]\nstages: {cat: {steps: 7}}\n",
}


@pytest.fixture
def layers(tmp_path) -> Path:
    for name, text in LAYERS.items():
        write(tmp_path, name, text)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


OPTIONS = """
from dataclasses import dataclass

@dataclass
class Options:
    depth: int = 2
    colour: str = "red"

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}; expected at least 1")

@dataclass
class Other:
    width: int = 3
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A backbone, two heads and an environment, as a third party would offer them."""
    folder = tmp_path_factory.mktemp("acme")
    (folder / "acme_recipe_options.py").write_text(OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield PluginManager([_acme()]).registry


def _acme() -> types.ModuleType:
    def part(name: str, config: str = "Options", **more) -> Component:
        path = "acme_recipe_options:"
        return Component(name=name, target=path + config, config=path + config, **more)

    plugin = types.ModuleType("acme")
    heads = [
        part("l1", "Other", requires={"hidden"}),
        part("flow", requires={"flow"}),
        part("native", requires={"native"}),
    ]
    plugin.pixelvla_backbones = hookimpl(lambda: [part("acme", provides={"hidden", "native"})])
    plugin.pixelvla_action_heads = hookimpl(lambda: heads)
    plugin.pixelvla_pixel_encoders = hookimpl(lambda: [part("multiscale")])
    plugin.pixelvla_environments = hookimpl(lambda: [part("table")])
    return plugin


@pytest.fixture
def made(layers, registry):
    """Compose from the test's layers; refused compositions return the message."""

    def make(*arguments: str):
        return compose(*split_arguments(arguments), dirs=[layers], registry=registry)

    return make


def refused(made, *arguments: str) -> str:
    with pytest.raises(RecipeError) as caught:
        made(*arguments)
    assert "\n" not in str(caught.value), "an error is one paragraph"
    return str(caught.value)


# --- which value wins ---------------------------------------------------------------------------------------------


def test_later_layers_win_and_overrides_win_over_all(made):
    assert made("base", "stage").stages["cat"].lr == 5e-4
    assert made("whole").stages["cat"].lr == 1e-3
    assert made("whole", "stages.cat.lr=3e-4").stages["cat"].lr == 3e-4
    assert made("stages.cat.lr=3e-4", "whole").stages["cat"].lr == 3e-4


def test_layers_inside_files_are_resolved_recursively_and_relative_paths_from_the_file(made, layers):
    recipe = made("deeper/own")
    assert (recipe.backbone.name, recipe.stages["cat"].lr, recipe.stages["cat"].steps) == ("acme", 1e-3, 7)
    assert made(str(layers / "deeper" / "own.yaml")) == recipe


def test_numbers_are_read_as_people_write_them(made):
    assert made("base", "stage").stages["pue"].steps == 100_000
    assert made("whole", "stages.cat.grad_clip=2").stages["cat"].grad_clip == 2.0


def test_a_lone_name_is_short_for_a_part_at_every_place(made):
    recipe = made("whole", "pixel_encoder=multiscale", "evaluate.env=table")
    assert recipe.pixel_encoder.name == "multiscale"
    assert recipe.evaluate.env.name == "table"


def test_naming_another_part_drops_the_options_of_the_one_beneath(made, layers):
    write(layers, "flowing", "head: {name: native, options: {depth: 9}}\n")
    assert made("whole", "flowing", "run=[]").head.options == {"depth": 9, "colour": "red"}
    assert made("whole", "flowing", "run=[]", "head.options.depth=4").head.options["depth"] == 4
    assert made("whole", "flowing", "head=l1").head.options == {"width": 3}


def test_the_resolved_recipe_has_every_default_of_every_part(made):
    assert made("whole").head.options == {"width": 3}
    assert made("whole").backbone.options == {"depth": 2, "colour": "red"}


def test_interpolations_see_defaults_as_well(made, layers):
    write(layers, "same", "stages: {pue: {lr: '${stages.cat.lr}', seed: '${evaluate.seed}'}}\n")
    assert made("whole", "same").stages["pue"].lr == 1e-3
    assert made("whole", "same", "evaluate.seed=5").stages["pue"].seed == 5
    assert "cannot be resolved" in refused(made, "whole", "stages.cat.lr=${nowhere.at.all}")


# --- saving and loading -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 10**9),
    lr=st.floats(1e-12, 10, allow_nan=False),
    colour=st.text(st.characters(codec="utf-8", exclude_characters="$", exclude_categories=["Cs", "Cc"]), max_size=12),
    run=st.lists(st.sampled_from(["cat", "pue"]), max_size=3),
    episodes=st.integers(1, 10**6),
)
def test_a_resolved_recipe_saves_and_reloads_equal(tmp_path_factory, registry, steps, lr, colour, run, episodes):
    folder = tmp_path_factory.mktemp("saved")
    stage = {"train": ["head"], "steps": steps, "lr": lr}
    content = {
        "backbone": {"name": "acme", "options": {"colour": colour}},
        "head": "l1",
        "stages": {"cat": stage, "pue": {**stage, "cache": "hidden"}},
        "run": run,
        "evaluate": {"env": "table", "episodes": episodes, "prompts": ["none", "point+box"]},
    }
    path = write(folder, "one", yaml.safe_dump(content, allow_unicode=True))
    recipe = compose([str(path)], dirs=[folder], registry=registry)
    again = load_recipe(write(folder, "saved", to_yaml(recipe)), registry=registry)
    assert again == recipe
    assert to_yaml(again) == to_yaml(recipe)


def test_a_saved_recipe_takes_overrides(made, registry, tmp_path):
    save_recipe(made("whole"), tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml", ["stages.cat.steps=3"], registry).stages["cat"].steps == 3


# --- what is refused ----------------------------------------------------------------------------------------------


def test_an_unknown_layer_says_the_nearest_and_where_it_was_searched(made, layers):
    message = refused(made, "whoel")
    assert "There is no recipe 'whoel'. Did you mean 'whole'?" in message
    assert str(layers) in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.cat.lrr=1", "no key 'stages.cat.lrr' in a recipe. Did you mean 'lr'?"),
        ("evaluat.episodes=1", "no key 'evaluat' in a recipe. Did you mean 'evaluate'?"),
        ("head.options.widht=1", "no key 'head.options.widht' in a recipe. Did you mean 'width'?"),
        ("head.option.width=1", "no key 'head.option' in a recipe. Did you mean 'options'?"),
        ("backbone.options.depth=0", "backbone.options.depth is 0; expected at least 1."),
        ("backbone.options.depth=deep", "backbone.options.depth is 'deep'; expected a whole number."),
        ("backbone.dtype=float8", "backbone.dtype is 'float8'; expected one of float32, bfloat16, float16."),
        ("stages.cat.lr=-1", "stages.cat.lr is -1.0; expected more than 0."),
        ("stages.cat.lr=.nan", "stages.cat.lr is nan; expected more than 0."),
        ("stages.cat.steps=0", "stages.cat.steps is 0; expected at least 1."),
        ("stages.cat.steps=1.5", "stages.cat.steps is 1.5; expected a whole number."),
        ("stages.cat.steps=true", "stages.cat.steps is True; expected a whole number."),
        ("stages.cat.lr=.inf", "stages.cat.lr is inf; expected a finite number."),
        ("stages.cta.steps=5", "There is no stage 'cta'. Did you mean 'cat'? Defined: cat, pue."),
        ("evaluate.prompts=[point+none]", "evaluate.prompts lists 'point+none', but none stands alone"),
        ("stages.cat.warmup_steps=101", "stages.cat.warmup_steps is 101; expected at most 100."),
        ("stages.cat.prompts=perhaps", "stages.cat.prompts is 'perhaps'; expected true or false."),
        ("stages.cat.train=[]", "stages.cat.train is empty"),
        ("stages.cat.train=head", "stages.cat.train is 'head'; expected a list"),
        ("stages.cat.train=[haed]", "stages.cat.train is 'haed'; expected one of"),
        ("stages.cat.train=[lora]", "stages.cat.train lists 'lora', which is empty here; set lora.rank above 0."),
        ("stages.cat.train=[pixel]", "stages.cat.train lists 'pixel', which is empty here; name a pixel_encoder"),
        ("stages.cat=3", "stages.cat is 3; expected a mapping"),
        ("stages.cat.schedule=cosin", "Did you mean 'cosine'?"),
        ("stages.new={steps: 1, lr: 1}", "There is no stage 'new'. Defined: cat, pue. A new one needs at least"),
        ("run=[cat,peu]", "run names the stage 'peu', which no layer defines. Did you mean 'pue'? Defined: cat, pue."),
        ("head=flow", "The head 'flow' needs flow from the backbone, but 'acme' provides hidden, native."),
        ("head=null", "stages.cat.train lists 'head', which is empty here; name a head."),
        ("head=native", "stages.cat.train lists 'head', which is empty here; the head 'native' is the base's own"),
        ("splice=before", "splice is 'before'; expected one of after_image, in_text."),
        ("action.horizon=0", "action.horizon is 0; expected at least 1."),
        ("lora.dropout=1", "lora.dropout is 1.0; expected 0 <= dropout < 1."),
        ("evaluate.prompts=[point+bocks]", "evaluate.prompts is 'bocks'"),
        ("evaluate.execute=0", "evaluate.execute is 0"),
        ("stages.cat.lr=[1,", "cannot be read"),
    ],
)
def test_every_mistake_is_one_paragraph_with_the_full_key(made, override, words):
    assert words in refused(made, "whole", override)


def test_a_cache_of_what_the_stage_changes_is_refused(made):
    assert "stages.cat.cache is 'hidden', but the stage trains lora" in refused(
        made, "whole", "lora.rank=4", "stages.cat.train=[lora]", "stages.cat.cache=hidden"
    )
    assert made("whole", "stages.cat.cache=hidden").stages["cat"].cache == "hidden"


def test_a_part_that_nobody_offers_is_told_with_what_there_is(made):
    with pytest.raises(PluginError, match=r"no action head 'l2'.*Known: flow, l1, native"):
        made("whole", "head=l2")


def test_what_only_the_user_can_give_is_refused_until_given_but_can_be_looked_at(made, layers, registry):
    write(layers, "open", "backbone:\n  weights: ???\n")
    assert "backbone.weights has no default; give it as backbone.weights=VALUE." in refused(made, "whole", "open")
    assert made("whole", "open", "backbone.weights=here").backbone.weights == "here"
    shown = compose(["whole", "open"], dirs=[layers], registry=registry, allow_missing=True)
    assert shown.backbone.weights == "???"


@pytest.mark.parametrize("text", ["a: [1,", "- a\n- b\n", "head: l1\nhead: l1\n  x: 1\n", "\x00", "layers: whole\n"])
def test_a_file_that_is_no_recipe_is_named(made, layers, text):
    path = write(layers, "bad", text)
    assert str(path) in refused(made, "bad")


def test_a_missing_file_is_named(made, tmp_path):
    assert str(tmp_path / "no.yaml") in refused(made, str(tmp_path / "no.yaml"))


def test_layers_that_lead_back_to_themselves_are_refused(made, layers):
    write(layers, "one", "layers: [two]\n")
    write(layers, "two", "layers: [one]\n")
    assert "lead back to itself" in refused(made, "one")


def test_two_recipes_of_one_name_are_refused_whatever_the_order_of_folders(layers, registry, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write(other, "base", "backbone: acme\n")
    for dirs in ([layers, other], [other, layers]):
        with pytest.raises(RecipeError, match="Two recipes are named 'base'"):
            compose(["base"], dirs=dirs, registry=registry)


# --- layers in a wrong order --------------------------------------------------------------------------------------


def test_a_composition_overwritten_by_its_own_base_is_refused(made):
    message = refused(made, "whole", "stage")
    assert "The layer stage is already part of the composition" in message
    assert "stages.cat.lr" in message


def test_a_base_named_before_its_composition_is_only_redundant(made):
    assert made("stage", "whole") == made("whole")
    assert made("whole", "whole") == made("whole")
    assert made("whole", "base") == made("whole")
    assert made("whole", "deeper/own") == made("deeper/own")


def test_a_layer_that_later_ones_overwrite_wholly_is_refused(made, layers):
    write(layers, "slow", "stages: {cat: {lr: 1e-6}}\n")
    assert "The layer slow has no effect: layers after it set stages.cat.lr anew" in refused(made, "slow", "whole")
    assert made("whole", "slow").stages["cat"].lr == 1e-6


def test_a_layer_for_a_backbone_needs_a_backbone_beneath_it(made, layers):
    write(layers, "bf16", "backbone: {dtype: bfloat16}\n")
    assert made("whole", "bf16").backbone.dtype == "bfloat16"
    message = refused(made, "bf16", "whole")
    assert "The layer bf16 sets backbone.dtype, but no layer beneath it says which backbone that is" in message


def test_a_layer_whose_other_values_are_all_changed_later_still_counts(made, layers):
    write(layers, "named", "backbone: {name: acme, dtype: float16}\n")
    write(layers, "bf16", "backbone: {dtype: bfloat16}\n")
    assert made("stage", "head=l1", "named", "bf16").backbone.dtype == "bfloat16"


def test_the_order_of_layers_that_touch_different_keys_does_not_matter(made):
    assert made("base", "stage") == made("stage", "base")


# --- the small helpers --------------------------------------------------------------------------------------------


def test_arguments_split_into_layers_and_overrides():
    arguments = ["a/b", "stages.cat.lr=1", "./x=y/recipe.yaml", "run=[a,b]"]
    assert split_arguments(arguments) == (["a/b", "./x=y/recipe.yaml"], ["stages.cat.lr=1", "run=[a,b]"])


def test_recipes_are_listed_by_name_with_their_first_comment(layers):
    found = find_recipes([layers])
    assert [file.name for file in found] == ["base", "deeper/own", "stage", "whole"]
    assert found[2].summary == "Two stages"


def test_suggestions_are_silent_when_nothing_is_near():
    assert suggest("zzzz", ["lr", "steps"]) == ""
