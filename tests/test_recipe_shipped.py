"""Every shipped recipe composes, names no backbone outside its layer, has the paper's numbers, and is documented."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pixelvla_core.errors import RecipeError
from pixelvla_core.recipe import (
    Evaluate,
    Recipe,
    Stage,
    compose,
    find_recipes,
    load_recipe,
    save_recipe,
    split_arguments,
)
from pixelvla_core.recipe.layers import builtin_dir, expand

ROOT = Path(__file__).resolve().parents[1]
DIRS = [builtin_dir()]
NAMES = [file.name for file in find_recipes(DIRS)]
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^pixelvla (?:train|recipe show) (.+)$", TEXT, re.MULTILINE)
GIVEN = ["data.options.root=data/mine", "backbone.weights=weights/mine"]
START = "start=runs/mine"


def given(name: str) -> list[str]:
    """What the user must give for this recipe."""
    missing = compose([name], allow_missing=True)
    data = [f"{path}=data/mine" for path in unset(missing.data.options, "data.options")] if missing.data else []
    return data + (GIVEN[1:] if missing.backbone else []) + ([START] if missing.start else [])


def unset(options: dict, path: str) -> list[str]:
    """Paths of what is marked as missing in a part's options."""
    found = [unset(value, f"{path}.{key}") for key, value in options.items() if isinstance(value, dict)]
    return [f"{path}.{key}" for key, value in options.items() if value == "???"] + [p for each in found for p in each]


def test_the_recipes_are_found_in_this_source_tree():
    assert builtin_dir() == ROOT / "recipes"
    assert {"pixelvla_openvla", "libero_openvla", "mini/pixelvla", "ablation/ft_cat"} <= set(NAMES)


def test_the_recipes_are_found_inside_an_installed_package_as_well(tmp_path):
    """A wheel holds them in the package; here a copy of the package stands for it."""
    shutil.copytree(ROOT / "pixelvla_core", tmp_path / "pixelvla_core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "pixelvla_core" / "recipes")
    code = "from pixelvla_core.recipe.layers import builtin_dir, files_in\n"
    code += "print(builtin_dir(), len(files_in([builtin_dir()])))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "pixelvla_core" / "recipes"), str(len(NAMES))]


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_recipe_composes_and_reloads_equal(name, tmp_path):
    recipe = compose([name], given(name))
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_recipe_begins_with_a_comment_that_says_what_it_is(name):
    (file,) = [file for file in find_recipes(DIRS) if file.name == name]
    assert 10 < len(file.summary) <= 118


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("backbone/")])
def test_only_backbone_layers_name_a_backbone(name):
    """A recipe may take a backbone in by ``layers:`` and must then say nothing else of it but which weights."""
    layer = expand(name, DIRS)[-1]
    assert set(layer.content.get("backbone", {})) <= {"weights"}
    assert "openvla" not in str({key: value for key, value in layer.content.items() if key != "backbone"})


NEUTRAL = [name for name in NAMES if not any(layer.name.startswith("backbone/") for layer in expand(name, DIRS))]


@pytest.mark.parametrize("name", NEUTRAL)
def test_every_other_layer_fits_a_backbone_of_somebody_elses(name):
    head = [] if any(layer.name.startswith("head/") for layer in expand(name, DIRS)) else ["head/l1"]
    needs = ["encoder/pixelvla"] if name in ("stage/libero", "stage/two_stage", "stage/pue") else []
    recipe = compose([*needs, *head, name], ["backbone=third_party", *given(name)])
    assert recipe.backbone.name == "third_party"


def test_the_two_stages_have_the_papers_numbers():
    recipe = compose(["pixelvla_openvla"], GIVEN)
    cat, pue = recipe.stages["cat"], recipe.stages["pue"]
    assert recipe.run == ["cat", "pue"]
    assert (cat.train, cat.prompts, cat.steps, cat.batch_size, cat.lr) == (["head"], False, 100_000, 32, 5e-4)
    assert (pue.prompts, pue.steps, pue.batch_size, pue.lr) == (True, 200_000, 32, 1e-3)
    assert set(pue.train) == {"pixel", "prompt", "head", "lora"}
    assert (recipe.lora.rank, recipe.lora.groups, recipe.action.horizon) == (32, ["llm"], 8)
    assert (recipe.splice, recipe.action.normalization) == ("after_image", "q99")


def test_libero_has_the_papers_numbers():
    recipe = compose(["libero_openvla"], [*GIVEN, START])
    (name,) = recipe.run
    stage = recipe.stages[name]
    assert (stage.steps, stage.batch_size, stage.lr) == (150_000, 32, 5e-4)
    assert (recipe.lora.rank, recipe.action.horizon) == (32, 8)


def test_libero_fine_tunes_the_pretrained_model_and_has_its_parts():
    with pytest.raises(RecipeError, match="start has no default; give it as start=VALUE"):
        compose(["libero_openvla"], GIVEN)
    pretrained, adapted = compose(["pixelvla_openvla"], GIVEN), compose(["libero_openvla"], [*GIVEN, START])
    for key in ("backbone", "pixel_encoder", "prompt_encoder", "head", "splice", "lora", "action"):
        assert getattr(pretrained, key) == getattr(adapted, key), key


@pytest.mark.parametrize(
    ("row", "run", "head", "encoders"),
    [
        ("baseline", [], "native", False),
        ("ft", ["sft"], "native", False),
        ("ft_cat", ["cat"], "l1", False),
        ("ft_pue", ["pue"], "l1", True),
        ("pixelvla", ["cat", "pue"], "l1", True),
    ],
)
def test_the_five_rows_of_table_4(row, run, head, encoders):
    recipe = compose(["backbone/openvla", "data/lerobot", f"ablation/{row}"], GIVEN)
    assert (recipe.run, recipe.head.name) == (run, head)
    assert (recipe.pixel_encoder is not None, recipe.prompt_encoder is not None) == (encoders, encoders)


def test_the_normalisation_of_the_data_is_the_recipes():
    assert compose(["pixelvla_openvla"], [*GIVEN, "action.normalization=min_max"]).data.options["rule"] == "min_max"


def test_data_that_only_the_user_has_is_asked_for():
    with pytest.raises(RecipeError, match=r"data\.options\.root has no default; give it as data\.options\.root=VALUE"):
        compose(["pixelvla_openvla"])


# --- the documentation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_documentation_composes(command, tmp_path):
    words = shlex.split(command.split("--out")[0])
    words = [word for word in words if not word.startswith("runs/")]
    names, overrides = split_arguments(words)
    if names:
        assert compose(names, overrides, allow_missing=True)


def test_every_recipe_that_the_documentation_names_exists_and_every_shipped_one_is_named():
    folders = {name.split("/")[0] for name in NAMES if "/" in name}
    named = set(re.findall(rf"`((?:{'|'.join(sorted(folders))})/\w+|\w+_(?:openvla|pi0))`", TEXT))
    assert named - {"backbone/openvla"} <= set(NAMES)
    assert set(NAMES) <= named


@pytest.mark.parametrize("key", [field.name for field in fields(Stage)])
def test_every_key_of_a_stage_is_documented(key):
    section = TEXT.split("## Stages", 1)[1].split("\n## ", 1)[0]
    assert f"`{key}`" in section


def test_every_other_key_is_documented():
    keys = {field.name for field in fields(Recipe)} | {f"evaluate.{field.name}" for field in fields(Evaluate)}
    found = set(re.findall(r"`([\w.]+)`", TEXT)) | {key.split(".")[0] for key in re.findall(r"`([\w.]+\.\w+)`", TEXT)}
    assert keys <= found


def test_the_order_examples_of_the_documentation_are_true():
    assert compose(["pixelvla_openvla", "stage/two_stage"], GIVEN) == compose(["pixelvla_openvla"], GIVEN)
    with pytest.raises(RecipeError, match="already part of the composition"):
        compose(["mini/pixelvla", "stage/two_stage"], GIVEN)
