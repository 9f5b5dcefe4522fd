"""Where and when something was measured, and with which versions."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "timm", "numpy", "mujoco", "lerobot")
BENCH = Path(__file__).resolve().parent
QUIET = 1.5
"""Below this load the machine had nothing else to do that would show in the figures."""


def circumstances() -> dict[str, Any]:
    """The machine, its load of the last minute, the date and the versions, as JSON."""
    load = os.getloadavg()[0]
    return {
        "machine": describe(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(load, 1),
        "quiet": load < QUIET,
        "nice": os.nice(0),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
    }


def code(name: str) -> str:
    """Digest of a benchmark's file and of what it imports from this folder; equal code gives equal digests.

    Comments, docstrings and line breaks do not count. What is measured, the project itself, is not in it.
    """
    files, todo = {}, [name]
    while todo:
        part = todo.pop()
        path = BENCH / f"{part}.py"
        if part not in files and path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            files[part] = ast.dump(_without_docstrings(tree))
            todo += [found for node in ast.walk(tree) for found in _imported(node)]
    return hashlib.sha256("\n".join(files[part] for part in sorted(files)).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(node: ast.AST) -> list[str]:
    """Names of this folder's modules that a statement imports."""
    if not isinstance(node, ast.ImportFrom) or not node.module:
        return []
    if node.module == "bench":
        return [alias.name for alias in node.names]
    return [node.module.removeprefix("bench.")] if node.module.startswith("bench.") else []


def describe() -> str:
    """Such as "2 cores of x86_64 AVX-512, 24 GiB, Linux"."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB, {platform.system()}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
