"""The demonstration as a user runs it, and the processes that it trains in."""

from __future__ import annotations

import json
import multiprocessing

import pytest
from pixelvla_demo.demo import DONE, Progress
from pixelvla_demo.lanes import run_side_by_side
from pixelvla_demo.plan import Size, plan

from pixelvla_core.cli.main import main
from pixelvla_core.errors import UserError

SMALL = ["--steps", "2", "--demonstrations", "8", "--episodes", "4", "--overlay-episodes", "4"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "not a demonstration, so it is not overwritten" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_record_of_what_is_done_is_refused(tmp_path, capsys):
    (tmp_path / "steps.json").write_text('{"pixelvla record": 3.0}', encoding="utf-8")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "does not say which commands are done" in capsys.readouterr().err


@pytest.mark.timeout(600)  # records, trains three models and plays 144 episodes
def test_all_of_it_in_small_and_once_more(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    said = capfd.readouterr().out
    assert "PixelVLA: pue 2" in said  # a training's line, under its name
    assert "SFT: sft 2" in said
    done = json.loads((out / "steps.json").read_text(encoding="utf-8"))
    assert done["elapsed"] > 0
    assert sum(line.startswith("pixelvla train") for line in done["seconds"]) == 3
    report = (out / "report.html").read_text(encoding="utf-8")
    assert all(title in report for title in ("base model", "SFT", "PixelVLA", "overlay", "Annotations"))
    assert "episodes kept" in report
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    assert capfd.readouterr().out.count("Done before") == len(done["seconds"])
    _note_as_done(out, Size(8, 4, 4, 2, 0, base=("pi0",), steps=2))
    assert main(["demo", "--out", str(out), *SMALL]) == 0  # the folder has another base's models too
    assert main(["demo", "--out", str(out), *SMALL, "--seed", "1"]) == 2
    assert "a demonstration with other options" in capfd.readouterr().err


def _note_as_done(out, size):
    progress = Progress(out / DONE)
    progress.load()
    for phase in plan(out, size):
        for step in phase.steps:
            progress.note(step.command, 1.0)


def test_commands_run_side_by_side_and_say_who_speaks(capsys):
    finished = []
    commands = [("first", ("--version",)), ("second", ("recipe", "show", "mini/sft"))]
    run_side_by_side(commands, at_once=2, finished=lambda command, seconds: finished.append(command))
    assert sorted(finished) == sorted(command for _, command in commands)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("first: pixelvla, version") for line in lines)
    assert all(line.startswith(("first: ", "second: ")) for line in lines)


def test_when_one_fails_the_others_stop(tmp_path, capsys):
    finished = []
    long = ("record", str(tmp_path / "demos"), "--episodes", "5000")
    commands = [("long", long), ("wrong", ("recipe", "show", "nonsense")), ("never", ("--version",))]
    with pytest.raises(UserError, match="recipe show nonsense` ended with status 2"):
        run_side_by_side(commands, at_once=2, finished=lambda command, seconds: finished.append(command))
    assert not multiprocessing.active_children()
    assert finished in ([], [("--version",)])  # it may have begun before the failure was noticed
    assert not (tmp_path / "demos").exists()
    assert "wrong: Error:" in capsys.readouterr().out
