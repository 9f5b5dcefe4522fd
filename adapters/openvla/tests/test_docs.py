"""docs/openvla.md: its example runs, and every name in its table exists."""

from __future__ import annotations

import re
from pathlib import Path

from pixelvla_openvla import OpenVLA

PAGE = (Path(__file__).parents[3] / "docs" / "openvla.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/openvla.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[[")


def test_every_name_in_the_table_exists(small):
    rows = PAGE.split("### Names")[1].split("##")[0].splitlines()
    first_cells = " ".join(row.split("|")[1] for row in rows if row.startswith("|"))
    names = re.findall(r"`(?:OpenVLA)?\.([a-z_.]+)", first_cells)
    assert len(names) > 12
    for name in names:
        value = small
        for step in name.split("."):
            value = getattr(value, step)
    assert callable(OpenVLA.from_pretrained)
