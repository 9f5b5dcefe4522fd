"""Finding plugins: what loads, what is kept aside and why, and what the registry answers."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from pixelvla_core.component import Component
from pixelvla_core.errors import PluginError
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import PluginManager


def part(name: str = "one", **changes) -> Component:
    given = {"name": name, "target": "fractions:Fraction", "config": "fractions:Fraction", **changes}
    return Component(**given)


def plugin(name: str = "acme", **hooks) -> types.ModuleType:
    """A module that offers what each hook's function returns."""
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


def entry_point(folder: Path, monkeypatch, name: str, source: str) -> EntryPoint:
    """A real entry point whose module has this source."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return EntryPoint(name=name, value=name, group="pixelvla")


def test_a_part_is_found_by_kind_and_name_with_its_origin():
    manager = PluginManager([plugin(pixelvla_trackers=lambda: [part()])])
    assert manager.registry.get("tracker", "one") == part()
    assert manager.registry.entry("tracker", "one").distribution == "acme"
    assert manager.registry.names("tracker") == ["one"]
    assert manager.registry.names("backbone") == []


def test_core_itself_is_a_plugin_like_any_other():
    registry = PluginManager.load().registry
    entry = registry.entry("pixel_encoder", "multiscale")
    assert (entry.distribution, entry.version) == ("pixelvla", "0.1.0")
    assert {"sam", "overlay"} <= set(registry.names("prompt_encoder"))
    assert registry.get("action_head", "l1").requires == {"hidden"}
    assert "hold" in registry.names("tracker")


def test_the_components_target_is_imported_only_when_it_is_built():
    component = part(target="pixelvla_no_such_package:build")
    PluginManager([plugin(pixelvla_trackers=lambda: [component])]).registry.get("tracker", "one")
    with pytest.raises(PluginError, match=r"'one' needs pixelvla_no_such_package.*pixelvla doctor"):
        component.build()
    assert part(target="fractions:Fraction").build(1, 2) * 2 == 1
    assert part(config="pixelvla_core.component:Component").load_config() is Component
    with pytest.raises(PluginError, match="no attribute 'Frac'"):
        part(target="fractions:Frac").build()


@pytest.mark.parametrize(
    "changes",
    [{"name": "Two Words"}, {"name": ""}, {"target": "fractions"}, {"config": "a:b:c"}, {"provides": "hidden"}],
)
def test_a_malformed_component_is_refused(changes):
    with pytest.raises(ValueError, match=r"expected|names are"):
        part(**changes)


def test_a_plugin_that_cannot_be_imported_is_kept_aside_with_the_reason(tmp_path, monkeypatch):
    bad = entry_point(tmp_path, monkeypatch, "acme_broken_import", "import acme_missing_dependency\n")
    manager = PluginManager([bad, plugin(pixelvla_trackers=lambda: [part()])])
    assert manager.registry.names("tracker") == ["one"]
    assert [broken.name for broken in manager.broken] == ["acme_broken_import"]
    assert "No module named 'acme_missing_dependency'" in manager.broken[0].reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        (
            "from pixelvla_core.hookspecs import hookimpl\n@hookimpl\ndef pixelvla_tracker(): return []",
            "pixelvla_trackers",
        ),
        ("from pixelvla_core.hookspecs import hookimpl\n@hookimpl\ndef pixelvla_trackers(x): return []", "Argument"),
        (
            "from pixelvla_core.hookspecs import hookimpl\n@hookimpl\ndef pixelvla_trackers(): return None",
            "list of Component",
        ),
        (
            "from pixelvla_core.hookspecs import hookimpl\n@hookimpl\ndef pixelvla_recipe_dirs(): return ['x']",
            "list of Path",
        ),
        ("def pixelvla_trackers(): return []", "lacks the @hookimpl mark"),
    ],
)
def test_every_way_to_be_broken_is_reported_and_stops_nobody_else(tmp_path, monkeypatch, request, source, reason):
    name = f"acme_broken_{abs(hash(source))}"
    manager = PluginManager(
        [entry_point(tmp_path, monkeypatch, name, source), plugin(pixelvla_trackers=lambda: [part()])]
    )
    assert reason in str(manager.broken[0])
    assert manager.registry.names("tracker") == ["one"]


def test_entry_points_that_share_a_name_are_all_loaded(tmp_path, monkeypatch):
    """pluggy's own loader skips the second."""
    source = "from pixelvla_core.component import Component\nfrom pixelvla_core.hookspecs import hookimpl\n"
    source += "@hookimpl\ndef pixelvla_trackers():\n    return [Component(name='{}', target='a:b', config='a:b')]\n"
    one = entry_point(tmp_path, monkeypatch, "acme_same_a", source.format("a"))
    two = entry_point(tmp_path, monkeypatch, "acme_same_b", source.format("b"))
    same = [EntryPoint(name="same", value=point.value, group="pixelvla") for point in (one, two)]
    assert PluginManager(same).registry.names("tracker") == ["a", "b"]


def test_a_name_claimed_twice_names_both_distributions_and_leaves_other_parts_alone():
    first = plugin("acme", pixelvla_trackers=lambda: [part("same"), part("other")])
    second = plugin("emca", pixelvla_trackers=lambda: [part("same")], pixelvla_segmenters=lambda: [part("same")])
    registry = PluginManager([first, second]).registry
    with pytest.raises(PluginError, match=r"'same' is claimed by acme and emca"):
        registry.get("tracker", "same")
    assert registry.get("tracker", "other")
    assert registry.get("segmenter", "same")
    assert len(registry.conflicts()) == 1


def test_the_order_of_plugins_changes_nothing():
    plugins = [plugin(name, pixelvla_trackers=lambda name=name: [part(name)]) for name in ("a", "b", "c")]
    there, back = PluginManager(plugins).registry, PluginManager(plugins[::-1]).registry
    assert there.names("tracker") == back.names("tracker") == ["a", "b", "c"]


def test_an_unknown_name_gives_the_nearest_all_known_and_what_did_not_load(tmp_path, monkeypatch):
    bad = entry_point(tmp_path, monkeypatch, "acme_broken_unknown", "import acme_missing_dependency\n")
    registry = PluginManager([bad, plugin(pixelvla_trackers=lambda: [part("hold"), part("flow")])]).registry
    with pytest.raises(PluginError) as caught:
        registry.get("tracker", "flwo")
    message = str(caught.value)
    assert "Did you mean 'flow'?" in message
    assert "Known: flow, hold" in message
    assert "acme_broken_unknown" in message
    assert "acme_missing_dependency" in message


def test_an_unknown_kind_is_an_error():
    with pytest.raises(PluginError, match="Did you mean 'tracker'"):
        PluginManager().registry.get("trackers", "hold")


def test_a_plugin_whose_commands_fail_or_clash_is_kept_aside_with_none_of_them_added():
    def fails(cli):
        cli.add_command(click.Command("half"))
        raise RuntimeError("no display")

    def clashes(cli):
        cli.add_command(click.Command("train"))
        cli.add_command(click.Command("more"))

    cli = click.Group()
    manager = PluginManager([plugin("a", pixelvla_commands=fails), plugin("b", pixelvla_commands=clashes)])
    manager.add_commands(cli, reserved=["train"])
    assert cli.commands == {}
    assert [broken.reason for broken in manager.broken] == [
        "RuntimeError: no display",
        "its command 'train' is already there",
    ]


def test_listing_every_part_imports_nothing_heavy():
    """Other people's plugin modules too may import only ``hookspecs`` and ``component``; ours are tried here."""
    code = (
        "import sys; from pixelvla_core.plugins import PluginManager; m = PluginManager.load(); list(m.registry);"
        "print([n for n in ('torch', 'transformers', 'lerobot', 'mujoco', 'cv2', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
