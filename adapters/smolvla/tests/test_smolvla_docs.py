"""The page's figure of lines is what its own command says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_number_of_lines_is_the_one_that_the_page_states():
    page = (ROOT / "docs" / "smolvla.md").read_text(encoding="utf-8")
    command, stated = re.search(r"```sh\n(cat .*)\n```\n\nsays ([\d,]+) lines", page).groups()
    found = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) == int(stated.replace(",", ""))
