"""The command line as its user meets it: what it prints, where, and the exit status."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from pixelvla_core.cli import main as cli_main
from pixelvla_core.cli.main import main
from pixelvla_core.cli.plugins import listing
from pixelvla_core.component import Component
from pixelvla_core.errors import PixelVLAError, UserError
from pixelvla_core.hookspecs import hookimpl
from pixelvla_core.plugins import PluginManager
from pixelvla_core.train.loop import Interrupted


@pytest.fixture
def command(monkeypatch):
    """Let ``pixelvla test-it`` do what a test wants."""

    def install(function) -> None:
        class Acme:
            @hookimpl
            def pixelvla_commands(self, cli: click.Group) -> None:
                cli.command("test-it")(function)

        manager = PluginManager([Acme()])
        manager.add_commands(cli_main.cli)
        monkeypatch.setattr(cli_main.cli, "manager", manager)

    yield install
    cli_main.cli.commands.pop("test-it", None)


def test_help_lists_every_command_with_one_line(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("wrap", "train", "eval", "plugins", "recipe", "doctor"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", cli_main.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 4


def test_an_unknown_command_exits_2_with_the_nearest(capsys):
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "There is no command 'trian'. Did you mean 'train'?" in captured.err


def test_a_wrong_option_exits_2(capsys):
    assert main(["train", "--nowhere"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_users_mistake_is_one_paragraph_on_stderr_and_exit_status_2(command, capsys):
    @command
    def fails() -> None:
        raise UserError("found a; expected b; do c.")

    assert main(["test-it"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "Error: found a; expected b; do c.\n"
    assert captured.out == ""


def test_an_unexpected_error_keeps_its_traceback(command):
    @command
    def fails() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        main(["test-it"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_without_a_traceback(command, capsys, number):
    @command
    def fails() -> None:
        raise OSError(number, os.strerror(number), "run/file")

    assert main(["test-it"]) == 2
    assert "The disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST])
def test_a_path_that_the_system_refuses_is_one_paragraph(command, capsys, number):
    @command
    def fails() -> None:
        raise OSError(number, os.strerror(number), "run/file")

    assert main(["test-it"]) == 2
    assert f"run/file: {os.strerror(number)}" in capsys.readouterr().err


def test_another_os_error_keeps_its_traceback(command):
    @command
    def fails() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        main(["test-it"])


def test_an_error_that_is_not_the_users_is_told_with_status_1(command, capsys):
    @command
    def fails() -> None:
        raise PixelVLAError("The worker ended.")

    assert main(["test-it"]) == 1
    assert capsys.readouterr().err == "Error: The worker ended.\n"


def test_a_stop_that_was_told_is_not_told_again(command, capsys):
    @command
    def fails() -> None:
        raise Interrupted

    assert main(["test-it"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("name", ["wrap", "train", "eval"])
@pytest.mark.parametrize("where", ["a file", "under a file", "a thesis"])
def test_no_command_writes_where_it_made_nothing(name, where, tmp_path, capsys):
    file = tmp_path / "thesis.txt"
    file.write_text("x")
    out = str({"a file": file, "under a file": file / "out", "a thesis": tmp_path}[where])
    commands = {
        "wrap": ["wrap", "--base", "third_party", "--weights", str(tmp_path)],
        "train": ["train", "mini/pixelvla", "data.options.root=none", "data.options.annotations=none"],
        "eval": ["eval", str(tmp_path / "run")],
    }
    assert main([*commands[name], "--out", out]) == 2
    assert re.search("not overwritten|cannot be a folder", capsys.readouterr().err)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


def test_ctrl_c_ends_a_real_process_with_130_and_one_line():
    code = (
        "import signal, sys, time, click\n"
        "from pixelvla_core.cli import main as m\n"
        # A shell's background jobs begin with the signal ignored, and so does what they start.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "@m.cli.command('sleep')\n"
        "def sleep():\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "sys.exit(m.main(['sleep']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (130, "Stopped by Ctrl-C.")


def test_the_installed_command_works():
    script = Path(sys.executable).with_name("pixelvla")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pixelvla, version 0.1.0"


def test_plugins_lists_distribution_version_kind_name_and_summary(capsys):
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["DISTRIBUTION", "VERSION", "KIND", "NAME", "SUMMARY"]
    assert any(line.split()[:4] == ["pixelvla", "0.1.0", "action_head", "l1"] for line in lines)


def test_plugins_lists_names_claimed_twice_and_broken_plugins_with_the_reason():
    class Acme:
        @hookimpl
        def pixelvla_trackers(self) -> list[Component]:
            return [Component(name="same", target="a:b", config="a:b", summary="twice")]

    class Emca(Acme):
        pass

    class Typo:
        @hookimpl
        def pixelvla_traker(self) -> list[Component]:
            return []

    lines = listing(PluginManager([Acme(), Emca(), Typo()]))
    assert sum("twice" in line for line in lines) == 2
    assert any("'same' is claimed by Acme and Emca" in line for line in lines)
    assert lines[-1].startswith("broken: plugin 'Typo'")
    assert "pixelvla_trackers" in lines[-1]


def test_plugins_check_of_an_unknown_backbone_says_what_there_is(capsys):
    assert main(["plugins", "check", "no-such-backbone"]) == 2
    assert "There is no backbone 'no-such-backbone'" in capsys.readouterr().err


def test_train_without_a_recipe_says_what_to_give(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run")]) == 2
    assert "RECIPE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_train_resumed_without_a_saved_recipe_says_where_it_looked(tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert str(tmp_path / "run" / "recipe.yaml") in capsys.readouterr().err


def test_recipe_show_of_an_unknown_recipe(capsys):
    assert main(["recipe", "show", "pixelvla_opnvla"]) == 2
    assert "There is no recipe 'pixelvla_opnvla'" in capsys.readouterr().err


@pytest.mark.slow
def test_doctor_says_something_of_everything(capsys):
    status = main(["doctor"])
    out = capsys.readouterr().out
    for name in ("python", "plugins", "packages", "EGL", "ffmpeg", "torch", "cuda", "disk"):
        assert name in out
    assert status == (1 if "\nMISSING" in out else 0)


@pytest.mark.slow
def test_plugins_check_prints_every_clause_and_exits_0_for_the_example_backbone(capsys):
    assert main(["plugins", "check", "third_party"]) == 0
    assert "clauses hold" in capsys.readouterr().out
