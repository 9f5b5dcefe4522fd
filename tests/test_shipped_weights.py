"""Base weights that plugins ship: found by name, refused with what is known, and kept by name in checkpoints."""

from __future__ import annotations

import shutil
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
import torch
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core import checkpoint
from pixelvla_core.cli.plugins import listing
from pixelvla_core.component import Weights
from pixelvla_core.errors import CheckpointError, PluginError
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import GROUP, PluginManager
from pixelvla_core.wrap import wrap

INSTALLED = [entry for entry in entry_points(group=GROUP) if entry.name in ("core", "third_party")]


class Acme:
    """A plugin that ships weights for the third-party backbone."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.__name__ = "acme"
        self.found = [Weights(backbone="third_party", name=name, folder=folder, summary="small") for name in names]

    @hookimpl
    def pixelvla_weights(self) -> list[Weights]:
        return self.found


class Other(Acme):
    """Another plugin, which may claim the same names."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(folder, *names)
        self.__name__ = "other"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(ThirdPartyConfig(seed=3), weights=None).save_base(tmp_path / "shipped")
    return tmp_path / "shipped"


def test_a_name_is_its_folder_and_everything_else_stays_as_it_is(folder: Path, monkeypatch):
    registry = PluginManager([Acme(folder, "mini")]).registry
    assert registry.locate("third_party", "mini") == str(folder)
    for given in (None, "owner/name", str(folder), "./mini"):
        assert registry.locate("third_party", given) == given
    monkeypatch.chdir(folder.parent)
    assert registry.locate("third_party", "shipped") == "shipped"


def test_an_unknown_name_gets_the_nearest_and_all_known(folder: Path):
    registry = PluginManager([Acme(folder, "mini", "midi")]).registry
    with pytest.raises(PluginError, match=r"'mimi' are no folder.*Did you mean 'mi[nd]i'\? Known: midi, mini\."):
        registry.locate("third_party", "mimi")
    with pytest.raises(PluginError, match=r"for 'openvla'. Known: none\..*install the distribution"):
        registry.locate("openvla", "mini")


def test_two_plugins_with_one_name_are_both_named(folder: Path):
    manager = PluginManager([Acme(folder, "mini"), Other(folder, "mini")])
    with pytest.raises(PluginError, match=r"'mini' for base weights of 'third_party' is claimed by acme and other"):
        manager.registry.locate("third_party", "mini")
    assert any("claimed by acme and other" in line for line in listing(manager))


def test_one_name_for_two_backbones_is_no_conflict(folder: Path):
    plugin = Acme(folder, "mini")
    plugin.found.append(Weights(backbone="openvla", name="mini", folder=folder.parent))
    registry = PluginManager([plugin]).registry
    assert registry.locate("third_party", "mini") == str(folder)
    assert registry.locate("openvla", "mini") == str(folder.parent)
    assert registry.conflicts() == []


def test_a_folder_that_is_gone_is_an_error_only_for_who_uses_it(folder: Path):
    manager = PluginManager([Acme(folder, "mini")])
    shutil.rmtree(folder)
    assert any("mini" in line for line in listing(manager))
    with pytest.raises(PluginError, match=r"acme ships the weights 'mini'.*is not there. Install acme again"):
        manager.registry.locate("third_party", "mini")


def test_they_are_listed(folder: Path):
    lines = listing(PluginManager([Acme(folder, "mini")]))
    assert lines[1].split() == ["acme", "weights", "mini", "for", "third_party:", "small"]


@pytest.mark.parametrize("fields", [{"name": "Mini"}, {"name": "a/b"}, {"backbone": ""}])
def test_names_that_no_recipe_could_use_are_refused(fields):
    with pytest.raises(ValueError, match="names are lower case"):
        Weights(**{"backbone": "openvla", "name": "mini", "folder": Path(), **fields})


def test_what_is_no_list_of_weights_is_kept_aside(folder: Path):
    plugin = Acme(folder)
    plugin.found = [folder]
    manager = PluginManager([plugin])
    assert "expected a list of Weights" in manager.broken[0].reason
    manager.add_commands(click.Group())


def test_a_checkpoint_keeps_the_name_and_travels(folder: Path, tmp_path: Path, capsys):
    manager = PluginManager([*INSTALLED, Acme(folder, "mini")])
    out = wrap("third_party", "mini", tmp_path / "wrapped", manager=manager)
    assert checkpoint.read_manifest(out).base["weights"] == "mini"
    assert str(tmp_path) not in (out / "manifest.json").read_text() + (out / "recipe.yaml").read_text()
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    registry = PluginManager([*INSTALLED, Acme(elsewhere, "mini")]).registry
    loaded = checkpoint.load(shutil.move(out, tmp_path / "moved"), registry=registry)
    plain = build(ThirdPartyConfig(), weights=str(folder)).module.state_dict()
    assert all(torch.equal(loaded.model.base.state_dict()[name], tensor) for name, tensor in plain.items())


def test_other_weights_under_the_same_name_are_noticed(folder: Path, tmp_path: Path, capsys):
    out = wrap("third_party", "mini", tmp_path / "w", manager=PluginManager([*INSTALLED, Acme(folder, "mini")]))
    build(ThirdPartyConfig(seed=4), weights=None).save_base(tmp_path / "other")
    registry = PluginManager([*INSTALLED, Acme(tmp_path / "other", "mini")]).registry
    with pytest.raises(CheckpointError, match="another model or revision"):
        checkpoint.load(out, registry=registry)
    with pytest.raises(PluginError, match="no weights that a plugin ships"):
        checkpoint.load(out, registry=PluginManager(INSTALLED).registry)
