"""Where and when something was measured, and with which versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "timm", "numpy", "mujoco", "lerobot")
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
