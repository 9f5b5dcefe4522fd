"""Every hook: one test named after it that uses it, and a heading in docs/plugins.md with its exact signature."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import click
import pytest

from pixelvla_core import hookspecs
from pixelvla_core.component import KINDS, Component, Weights
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import PluginManager

ROOT = Path(__file__).resolve().parents[1]
HOOKS = {name: function for name, function in vars(hookspecs).items() if hasattr(function, "pixelvla_spec")}


def component(name: str) -> Component:
    return Component(name=name, target="acme.parts:build", config="acme.config:Config", summary="for a test")


class Acme:
    """A plugin with every hook there is."""

    @hookimpl
    def pixelvla_backbones(self) -> list[Component]:
        return [component("acme-backbone")]

    @hookimpl
    def pixelvla_pixel_encoders(self) -> list[Component]:
        return [component("acme-pixel")]

    @hookimpl
    def pixelvla_prompt_encoders(self) -> list[Component]:
        return [component("acme-prompt")]

    @hookimpl
    def pixelvla_action_heads(self) -> list[Component]:
        return [component("acme-head")]

    @hookimpl
    def pixelvla_segmenters(self) -> list[Component]:
        return [component("acme-segmenter")]

    @hookimpl
    def pixelvla_trackers(self) -> list[Component]:
        return [component("acme-tracker")]

    @hookimpl
    def pixelvla_detectors(self) -> list[Component]:
        return [component("acme-detector")]

    @hookimpl
    def pixelvla_reasoners(self) -> list[Component]:
        return [component("acme-reasoner")]

    @hookimpl
    def pixelvla_gripper_finders(self) -> list[Component]:
        return [component("acme-gripper-finder")]

    @hookimpl
    def pixelvla_recordings(self) -> list[Component]:
        return [component("acme-recording")]

    @hookimpl
    def pixelvla_runners(self) -> list[Component]:
        return [component("acme-runner")]

    @hookimpl
    def pixelvla_datasets(self) -> list[Component]:
        return [component("acme-dataset")]

    @hookimpl
    def pixelvla_environments(self) -> list[Component]:
        return [component("acme-environment")]

    @hookimpl
    def pixelvla_weights(self) -> list[Weights]:
        return [Weights(backbone="acme-backbone", name="acme-weights", folder=Path(__file__).parent)]

    @hookimpl
    def pixelvla_recipe_dirs(self) -> list[Path]:
        return [Path("/acme/recipes")]

    @hookimpl
    def pixelvla_commands(self, cli: click.Group) -> None:
        @cli.command("acme")
        def acme() -> None:
            """What acme does."""
            click.echo("acme was here")


@pytest.fixture
def manager() -> PluginManager:
    manager = PluginManager([Acme()])
    assert manager.broken == []
    return manager


def test_pixelvla_backbones(manager):
    assert manager.registry.get("backbone", "acme-backbone") == component("acme-backbone")


def test_pixelvla_pixel_encoders(manager):
    assert manager.registry.get("pixel_encoder", "acme-pixel") == component("acme-pixel")


def test_pixelvla_prompt_encoders(manager):
    assert manager.registry.get("prompt_encoder", "acme-prompt") == component("acme-prompt")


def test_pixelvla_action_heads(manager):
    assert manager.registry.get("action_head", "acme-head") == component("acme-head")


def test_pixelvla_segmenters(manager):
    assert manager.registry.get("segmenter", "acme-segmenter") == component("acme-segmenter")


def test_pixelvla_trackers(manager):
    assert manager.registry.get("tracker", "acme-tracker") == component("acme-tracker")


def test_pixelvla_detectors(manager):
    assert manager.registry.get("detector", "acme-detector") == component("acme-detector")


def test_pixelvla_reasoners(manager):
    assert manager.registry.get("reasoner", "acme-reasoner") == component("acme-reasoner")


def test_pixelvla_gripper_finders(manager):
    assert manager.registry.get("gripper_finder", "acme-gripper-finder") == component("acme-gripper-finder")


def test_pixelvla_recordings(manager):
    assert manager.registry.get("recording", "acme-recording") == component("acme-recording")


def test_pixelvla_runners(manager):
    assert manager.registry.get("runner", "acme-runner") == component("acme-runner")


def test_pixelvla_datasets(manager):
    assert manager.registry.get("dataset", "acme-dataset") == component("acme-dataset")


def test_pixelvla_environments(manager):
    assert manager.registry.get("environment", "acme-environment") == component("acme-environment")


def test_pixelvla_weights(manager):
    assert manager.registry.weights("acme-backbone", "acme-weights").folder == Path(__file__).parent


def test_pixelvla_recipe_dirs(manager):
    assert manager.recipe_dirs() == [Path("/acme/recipes")]


def test_pixelvla_commands(manager, capsys):
    cli = click.Group()
    manager.add_commands(cli)
    cli.main(["acme"], standalone_mode=False)
    assert capsys.readouterr().out == "acme was here\n"


def test_every_kind_has_its_hook_and_every_hook_fits_on_one_screen():
    assert set(KINDS.values()) | {"pixelvla_weights", "pixelvla_recipe_dirs", "pixelvla_commands"} == set(HOOKS)
    assert len(inspect.getsource(hookspecs).splitlines()) < 110


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test_named_after_it(name):
    tests = {node.name for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.FunctionDef)}
    assert f"test_{name}" in tests


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_under_a_heading_with_its_exact_signature(name):
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    heading, signature = f"### {name}\n", f"{name}{inspect.signature(HOOKS[name])}".replace("'", "")
    assert heading in text, f"docs/plugins.md has no heading {heading!r}"
    section = text.split(heading, 1)[1].split("\n#", 1)[0]
    assert f"def {signature}" in section, f"docs/plugins.md lacks `def {signature}` under {name}"


def test_no_documented_hook_is_missing_in_the_code():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    documented = {line.removeprefix("### ") for line in text.splitlines() if line.startswith("### pixelvla_")}
    assert documented == set(HOOKS)
