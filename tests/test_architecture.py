"""The house of rooms: which part of the code may import what, read from the source, and tried where it matters."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "pixelvla_core"
PACKAGES = sorted(
    folder
    for pattern in ("adapters/*/*pixelvla*", "plugins/*/*pixelvla*", "examples/*/*pixelvla*")
    for folder in ROOT.glob(pattern)
    if (folder / "__init__.py").is_file()
)
HEAVY = {"torch", "transformers", "peft", "accelerate", "timm", "lerobot", "mujoco", "cv2", "numpy", "scipy", "pyarrow"}
PUBLIC = {
    "api",
    "testing",
    "hookspecs",
    "component",
    "errors",
    "files",
    "annotate",
    "annotations",
    "checkpoint",
    "contract",
    "data",
    "evaluate",
}
"""What adapters and plugins may import of core; docs/plugins.md names the same."""


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    """Every module that a file imports; ``top_level``: only what importing the file itself imports."""
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), top_level):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST, top_level: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if top_level and (function or _type_checking(node)):
            continue
        yield node
        yield from _nodes(node, top_level)


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path, top_level=True)}


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in CORE.glob(pattern))


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", ["hookspecs", "component", "errors", "types", "plugins", "builtin", "api"])
def test_what_every_plugin_imports_needs_only_the_standard_library_and_pluggy(name):
    assert roots(CORE / f"{name}.py") <= {*sys.stdlib_module_names, "pluggy", "pixelvla_core"}


@pytest.mark.parametrize("path", files("recipe/*.py"), ids=ids)
def test_recipes_need_only_omegaconf(path):
    assert roots(path) <= {*sys.stdlib_module_names, "omegaconf", "yaml", "pixelvla_core"}


@pytest.mark.parametrize("path", files("cli/*.py"), ids=ids)
def test_the_command_line_imports_inside_functions(path):
    assert roots(path) <= {*sys.stdlib_module_names, "click", "pixelvla_core"}
    ours = {name for name in imports(path, top_level=True) if name.startswith("pixelvla_core.")}
    light = ("errors", "plugins", "files")
    assert all(name.split(".")[1] in light for name in ours), f"{path} imports {ours} before its command is called"


@pytest.mark.parametrize("path", files("**/config.py"), ids=ids)
def test_cores_options_need_nothing_heavy(path):
    assert not roots(path) & HEAVY


@pytest.mark.parametrize("path", files("**/*.py"), ids=ids)
def test_core_knows_no_plugin(path):
    ours = {folder.name for folder in PACKAGES}
    assert not {name.split(".")[0] for name in imports(path, top_level=False)} & ours


def test_every_package_that_ships_is_looked_at():
    projects = [path for pattern in ("adapters/*", "plugins/*", "examples/*") for path in ROOT.glob(pattern)]
    shipped = [
        folder / name
        for folder in projects
        if (folder / "pyproject.toml").is_file()
        for name in tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
            "wheel"
        ]["packages"]
    ]
    assert sorted(shipped) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES, ids=ids)
def test_plugins_import_cores_public_modules_only(package):
    for path in package.rglob("*.py"):
        if "tests" in path.parts:
            continue
        names = {name for name in imports(path, top_level=False) if name.startswith("pixelvla_core.")}
        private = {name for name in names if name.split(".")[1] not in PUBLIC}
        assert not private, f"{path} imports {private}; what adapters and plugins need is in pixelvla_core.api"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_public_modules_are_documented(name):
    assert f"`pixelvla_core.{name}`" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES, ids=ids)
def test_plugins_import_each_other_only_where_they_declare_it(package):
    project = tomllib.loads((package.parent / "pyproject.toml").read_text())["project"]
    declared = {
        name.split("[")[0].replace("-", "_") for name in project["dependencies"] if name.startswith("pixelvla-")
    }
    for path in package.rglob("*.py"):
        names = {name.split(".")[0] for name in imports(path, top_level=False)}
        others = {folder.name for folder in PACKAGES if folder.name in names and folder.parent != package.parent}
        assert others <= declared, f"{path} imports {others - declared} without declaring it"


@pytest.mark.parametrize("package", PACKAGES, ids=ids)
def test_plugin_and_config_modules_import_nothing_heavy(package):
    for name in ("plugin.py", "config.py"):
        path = package / name
        if path.exists():
            assert not roots(path) & HEAVY, f"{path} imports {roots(path) & HEAVY} when it is listed"


@pytest.mark.parametrize("folder", ["adapters", "plugins", "recipes", "docs", "tests"])
def test_folders_that_are_no_packages_stay_none(folder):
    """``adapters`` and ``recipes`` are other projects' packages."""
    assert not (ROOT / folder / "__init__.py").exists()


def _loaded_by(code: str) -> list[str]:
    check = f"import sys\n{code}\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["train", "--help"], ["recipe", "list"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments):
    assert _loaded_by(f"from pixelvla_core.cli.main import main; main({arguments!r})") == []


def test_the_options_of_every_installed_part_import_without_torch():
    code = "from pixelvla_core.plugins import PluginManager\n"
    code += "[entry.component.load_config() for entry in PluginManager.load().registry]"
    assert "torch" not in _loaded_by(code)
