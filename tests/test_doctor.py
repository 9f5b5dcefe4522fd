"""The doctor: what it looks at, what it says, and the command it names."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pixelvla_core import doctor
from pixelvla_core.cli.main import main
from pixelvla_core.component import Component
from pixelvla_core.distributions import declared
from pixelvla_core.doctor import Finding, render
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import PluginManager

ROOT = Path(__file__).resolve().parents[1]
GOOD = Finding(name="good", ok=True, found="here")
ABSENT = Finding(name="optional", ok=False, found="not here", remedy="get optional", required=False)
MISSING = Finding(name="needed", ok=False, found="not here", remedy="get needed")


def test_every_finding_is_a_line_and_every_remedy_stands_beneath_its_own():
    lines = render([GOOD, ABSENT, MISSING]).splitlines()
    assert lines[0] == "ok      good      here"
    assert lines[1].startswith("absent  optional")
    assert lines[2].strip() == "-> get optional"
    assert lines[3].startswith("MISSING needed")
    assert lines[-1] == "1 required thing(s) missing."


@pytest.mark.parametrize(("findings", "status"), [([GOOD, ABSENT], 0), ([GOOD, MISSING], 1)])
def test_only_something_required_makes_the_exit_status_1(monkeypatch, findings, status):
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert main(["doctor"]) == status


def test_a_requirement_that_misses_or_has_another_version_names_the_exact_install_command():
    assert doctor._requirement(Requirement("click>=8")).ok
    missing = doctor._requirement(Requirement("acme-no-such-distribution>=2,<3"))
    assert not missing.ok
    assert missing.remedy == doctor.install_command("acme-no-such-distribution<3,>=2")
    old = doctor._requirement(Requirement("click>=900"))
    assert not old.ok
    assert "but click>=900 is declared" in old.found


def test_an_install_command_quotes_what_the_shell_would_eat():
    assert doctor.install_command("a>=1,<2", "b").endswith(" 'a>=1,<2' b")


def test_a_distribution_is_reinstalled_from_where_it_came_from():
    """The first-party ones are editable here; by name another one might come from an index."""
    assert doctor.reinstall_command("pixelvla-demo").endswith("--force-reinstall -e " + str(ROOT / "plugins" / "demo"))
    assert doctor.reinstall_command("click").endswith("--force-reinstall click")
    assert doctor.reinstall_command("acme-not-there").endswith("--force-reinstall acme-not-there")


def test_what_an_extra_adds_is_looked_at_too():
    extra = {requirement.name for requirement in declared("lerobot", "dataset")}
    assert "datasets" in extra
    assert "torch" not in extra


def test_what_a_plugins_extras_add_is_optional(tmp_path, monkeypatch):
    info = tmp_path / "acme_vla-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: acme-vla\nVersion: 1.0\nRequires-Dist: click\nProvides-Extra: fast\n"
        "Requires-Dist: acme-no-such-distribution>=2; extra == 'fast'\nRequires-Dist: packaging; extra == 'fast'\n"
    )
    (info / "entry_points.txt").write_text("[pixelvla]\nacme = json\n")
    monkeypatch.syspath_prepend(tmp_path)
    findings = {finding.name: finding for finding in doctor._optional()}
    missing, there = findings["acme-no-such-distribution"], findings["packaging"]
    assert (missing.ok, missing.found) == (False, "not installed; for acme-vla[fast]")
    assert missing.remedy == doctor.install_command("acme-no-such-distribution>=2")
    assert there.ok
    assert not missing.required
    assert "click" not in findings


def test_broken_plugins_and_names_claimed_twice_are_required_to_be_mended(monkeypatch):
    class Acme:
        @hookimpl
        def pixelvla_trackers(self) -> list[Component]:
            return [Component(name="same", target="a:b", config="a:b")]

    class Emca(Acme):
        pass

    broken = EntryPoint(name="bad", value="acme_no_such_module", group="pixelvla")
    manager = PluginManager([Acme(), Emca(), broken])
    monkeypatch.setattr(doctor.PluginManager, "load", classmethod(lambda cls: manager))
    findings = {finding.name: finding for finding in doctor._plugins()}
    assert findings["plugins"].found == "Acme, Emca"
    assert "acme_no_such_module" in findings["plugin bad"].found
    assert "claimed by Acme and Emca" in findings["tracker same"].found
    assert all(findings[name].required and not findings[name].ok for name in ("plugin bad", "tracker same"))


def test_a_full_disk_is_seen(monkeypatch):
    monkeypatch.setattr(doctor, "FREE_BYTES", 2**80)
    (finding,) = doctor._disk()
    assert not finding.ok
    assert not finding.required


def test_egl_is_tried_for_real():
    devices = doctor.egl_devices()
    (finding,) = doctor._gl()
    assert finding.ok == bool(devices)
    assert finding.ok or "libegl1" in finding.remedy


def test_egl_is_required_if_a_plugin_brings_an_environment(monkeypatch):
    for brought in ([], [Component(name="world", target="a:b", config="a:b")]):

        class Acme:
            @hookimpl
            def pixelvla_environments(self, brought=brought) -> list[Component]:
                return brought

        manager = PluginManager([Acme()])
        monkeypatch.setattr(doctor.PluginManager, "load", classmethod(lambda cls, manager=manager: manager))
        (finding,) = doctor._gl()
        assert finding.required == bool(brought)
