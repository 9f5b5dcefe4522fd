"""Where the demonstration writes."""

from __future__ import annotations

from pixelvla_core.cli.main import main


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "not a demonstration, so it is not overwritten" in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]
