"""What is installed, what misses, and the command that mends it. Every finding comes from trying, not from guessing."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.requirements import Requirement

from pixelvla_core.distributions import declared, with_plugins
from pixelvla_core.plugins import PluginManager, describe_conflict

PYTHON = (3, 12)
FREE_BYTES = 4 * 1024**3  # the demonstration's data, caches and runs, with room to spare
GL_PACKAGES = "libegl1 libgl1-mesa-dri libosmesa6"
FFMPEG_LIBRARIES = ("avcodec", "avformat", "avutil", "swscale")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        ok: it is there and works.
        found: what was seen.
        remedy: the command that mends it; empty if all is well.
        required: False for what only some uses need.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds, most of them for importing torch."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _plugins,
        _requirements,
        _optional,
        _gl,
        _ffmpeg,
        _cuda,
        _disk,
    ]
    return [finding for check in checks for finding in check()]


def render(findings: list[Finding]) -> str:
    """Return the findings as lines: ok, MISSING (required) or absent (optional), each with its remedy beneath."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "ok" if finding.ok else "MISSING" if finding.required else "absent"
        lines.append(f"{mark:<8}{finding.name:<{width}}  {finding.found}".rstrip())
        if finding.remedy:
            lines.append(f"{'':<8}{'':<{width}}  -> {finding.remedy}")
    missing = sum(finding.required and not finding.ok for finding in findings)
    lines.append(f"{missing} required thing(s) missing." if missing else "Nothing required is missing.")
    return "\n".join(lines)


def install_command(*packages: str) -> str:
    """Return the command that installs Python packages into this environment."""
    quoted = " ".join(shlex.quote(package) for package in packages)
    if find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {sys.executable} {quoted}"
    return f"{sys.executable} -m pip install {quoted}"


def reinstall_command(name: str) -> str:
    """Return the command that installs a distribution again, from its folder if it came from one."""
    try:
        origin = json.loads(distribution(name).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    if not origin.get("url", "").startswith("file://"):
        return install_command("--force-reinstall", name)
    folder = unquote(urlparse(origin["url"]).path)
    editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
    return install_command("--force-reinstall", *editable, folder)


def apt_command(packages: str) -> str:
    """Return the command that installs Debian packages."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y {packages}"


def _python() -> list[Finding]:
    ok = sys.version_info[:2] >= PYTHON
    remedy = "" if ok else f"uv python install {'.'.join(map(str, PYTHON))}"
    return [Finding(name="python", ok=ok, found=sys.version.split()[0], remedy=remedy)]


def _plugins() -> list[Finding]:
    """Plugins that loaded in one line, then each that did not and each name that is claimed twice."""
    import click

    manager = PluginManager.load()
    manager.add_commands(click.Group())
    names = ", ".join(sorted(plugin.name for plugin in manager.plugins))
    findings = [Finding(name="plugins", ok=True, found=names)]
    for plugin in manager.broken:
        remedy = f"{reinstall_command(plugin.distribution)}   (or uninstall {plugin.distribution})"
        findings.append(Finding(name=f"plugin {plugin.name}", ok=False, found=plugin.reason, remedy=remedy))
    for claims in manager.registry.conflicts():
        name = str(claims[0]).replace("'", "")
        remedy = f"uninstall one of {', '.join(claim.distribution for claim in claims)}"
        findings.append(Finding(name=name, ok=False, found=describe_conflict(claims), remedy=remedy))
    return findings


def _requirements() -> list[Finding]:
    """The declared requirements of every distribution that brings a plugin, each looked at once."""
    wanted: dict[str, Requirement] = {}
    for name in with_plugins():
        for requirement in declared(name):
            wanted.setdefault(str(requirement), requirement)
            for extra in sorted(requirement.extras):
                wanted |= {str(further): further for further in declared(requirement.name, extra)}
    findings = [_requirement(requirement) for requirement in wanted.values()]
    good = [finding for finding in findings if finding.ok]
    summary = Finding(name="packages", ok=True, found=f"{len(good)} of {len(findings)} as declared")
    return [summary, *(finding for finding in findings if not finding.ok)]


def _optional() -> list[Finding]:
    """What the extras of those distributions add; only some uses need it."""
    findings = []
    for name in with_plugins():
        for extra in distribution(name).metadata.get_all("Provides-Extra") or []:
            found = (_requirement(requirement) for requirement in declared(name, extra))
            findings += [replace(one, found=f"{one.found}; for {name}[{extra}]", required=False) for one in found]
    return findings


def _requirement(requirement: Requirement) -> Finding:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return Finding(name=requirement.name, ok=False, found="not installed", remedy=install_command(str(requirement)))
    ok = requirement.specifier.contains(installed, prereleases=True)
    found = installed if ok else f"{installed}, but {requirement} is declared"
    return Finding(name=requirement.name, ok=ok, found=found, remedy="" if ok else install_command(str(requirement)))


def _gl() -> list[Finding]:
    """EGL, through which simulators render without a display; required as soon as a plugin brings an environment."""
    devices = egl_devices()
    found = "libEGL.so.1 cannot be loaded" if devices is None else f"{devices} device(s)"
    ok = bool(devices)
    remedy = "" if ok else apt_command(GL_PACKAGES)
    simulates = bool(PluginManager.load().registry.names("environment"))
    return [Finding(name="EGL", ok=ok, found=found, remedy=remedy, required=simulates)]


def egl_devices() -> int | None:
    """Return the number of EGL devices, software ones included; None if the library cannot be loaded."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return None
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return 0
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    count = ctypes.c_int(0)
    return count.value if query(0, None, ctypes.byref(count)) else 0


def _ffmpeg() -> list[Finding]:
    """FFmpeg's libraries, which torchcodec takes from the system; PyAV brings its own."""
    missing = [name for name in FFMPEG_LIBRARIES if ctypes.util.find_library(name) is None]
    pyav = "PyAV brings its own" if find_spec("av") else "no PyAV either; datasets with videos cannot be read"
    found = f"not in the system: {', '.join(missing)}; {pyav}" if missing else "found in the system"
    remedy = apt_command("ffmpeg") if missing else ""
    return [Finding(name="ffmpeg", ok=not missing, found=found, remedy=remedy, required=False)]


def _cuda() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding(name="torch", ok=False, found=f"cannot be imported: {error}", remedy=install_command("torch"))]
    ok = torch.cuda.is_available()
    found = torch.cuda.get_device_name(0) if ok else "none; everything runs on the CPU"
    remedy = "" if ok else "no command: it needs an NVIDIA card and its driver (`nvidia-smi` must list it)"
    return [
        Finding(name="torch", ok=True, found=f"{torch.__version__}, {torch.get_num_threads()} threads"),
        Finding(name="cuda", ok=ok, found=found, remedy=remedy, required=False),
    ]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    ok = free >= FREE_BYTES
    remedy = "" if ok else f"free some space in {Path.cwd()}, or give --out on another disk; `du -xh -d 2 . | sort -h`"
    return [Finding(name="disk", ok=ok, found=f"{free / 1024**3:.1f} GiB free here", remedy=remedy, required=False)]
