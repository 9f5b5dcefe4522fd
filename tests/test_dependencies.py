"""Every distribution declares what it imports, so that it works where only its own requirements are installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = sorted([ROOT, *(file.parent for file in ROOT.glob("*/*/pyproject.toml"))])
OPTIONAL = {"bitsandbytes", "groundingdino", "ultralytics"}
"""What is imported only if the user asks for it, with an error that says what to install."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name.strip())[0]).lower()


def declared(project: Path) -> set[str]:
    """The requirements of a distribution and its extras, and those of pixelvla, which every one of ours requires."""
    listed = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for names in listed.get("optional-dependencies", {}).values() for name in names]
    names = {canonical(name) for name in [listed["name"], *listed["dependencies"], *extras]}
    return names if project == ROOT else names | declared(ROOT)


def imported(folder: Path) -> set[str]:
    """Top-level packages that the files of a package import, anywhere in them, but for type checking."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - OPTIONAL - {folder.name}


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _run(node)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_every_import_is_declared(project: Path) -> None:
    distributions = packages_distributions()
    known = declared(project)
    for package in (file.parent for file in project.glob("*pixelvla*/__init__.py")):
        for name in sorted(imported(package)):
            offers = {canonical(offer) for offer in distributions.get(name, [name])}
            assert offers & known, f"{package.name} imports {name} ({', '.join(offers)}), which its pyproject lacks"


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_every_part_of_the_workspace_is_licensed_and_described(project: Path) -> None:
    listed = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert listed["license"] == "Apache-2.0"
    assert listed["requires-python"] == ">=3.12"
    assert len(listed["description"]) > 20
