"""Finding recipe files, reading them, and laying one over another; plain mappings throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pixelvla_core.errors import RecipeError, suggest

SUFFIXES = (".yaml", ".yml")

PARTS: Mapping[str, str] = {
    "backbone": "backbone",
    "pixel_encoder": "pixel_encoder",
    "prompt_encoder": "prompt_encoder",
    "head": "action_head",
    "data": "dataset",
    "evaluate.env": "environment",
    "evaluate.segmenter": "segmenter",
    "evaluate.tracker": "tracker",
    "annotate.recording": "recording",
    "annotate.gripper": "gripper_finder",
    "annotate.reasoner": "reasoner",
    "annotate.detector": "detector",
    "annotate.segmenter": "segmenter",
    "annotate.tracker": "tracker",
    "annotate.runner": "runner",
}
"""Where a recipe names a part, and the kind of that part."""

MODEL_PARTS = ("backbone", "pixel_encoder", "prompt_encoder", "head")
"""Those that a model is made of: all that a robot needs."""

Plain = dict[str, Any]


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that was found: its name, its file and the first line of its comment."""

    name: str
    path: Path
    summary: str


@dataclass(frozen=True)
class Layer:
    """One file's own content, its own ``layers:`` taken out."""

    name: str
    path: Path
    content: Plain


def builtin_dir() -> Path:
    """Return the folder of core's recipes: inside the package when installed, beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def files_in(dirs: Sequence[Path]) -> list[RecipeFile]:
    """Return every recipe in the folders, sorted by name."""
    found = [
        RecipeFile(path.relative_to(folder).with_suffix("").as_posix(), path, _summary(path))
        for folder in dirs
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES
    ]
    return sorted(found, key=lambda file: file.name)


def expand(name: str, dirs: Sequence[Path], *, beside: Path | None = None, trail: tuple[Path, ...] = ()) -> list[Layer]:
    """Return a recipe's layers from the lowest up, its own content last.

    Args:
        name: a name in ``dirs``, or the path of a YAML file.
        dirs: where names are looked up.
        beside: the folder that ``./`` and ``../`` start from; the current one by default.
        trail: the files that led here, to notice a circle.
    """
    path = _locate(name, dirs, beside)
    if path in trail:
        circle = " -> ".join(str(step) for step in (*trail[trail.index(path) :], path))
        raise RecipeError(f"The layers of {path} lead back to itself: {circle}. Take one of these steps out.")
    content = _read(path)
    below = content.pop("layers", [])
    if not isinstance(below, list) or not all(isinstance(item, str) for item in below):
        raise RecipeError(f"layers in {path} is {below!r}; expected a list of names, such as [stage/two_stage].")
    layers = [layer for item in below for layer in expand(item, dirs, beside=path.parent, trail=(*trail, path))]
    return [*layers, Layer(name, path, full_parts(content))]


def lay(lower: Plain, upper: Plain) -> Plain:
    """Return ``upper`` laid over ``lower``. Naming another part drops the options of the part beneath."""
    return _lay(lower, upper, "")


def _lay(lower: Plain, upper: Plain, path: str) -> Plain:
    merged = dict(lower)
    for key, value in upper.items():
        here = f"{path}.{key}" if path else key
        old = lower.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and not _other_part(here, old, value):
            merged[key] = _lay(old, value, here)
        else:
            merged[key] = value
    return merged


def _other_part(path: str, old: Plain, new: Plain) -> bool:
    return path in PARTS and new.get("name", old.get("name")) != old.get("name")


def full_parts(content: Plain) -> Plain:
    """Write ``head: l1`` out as ``head: {name: l1}`` wherever a recipe names a part."""
    full = dict(content)
    for path in PARTS:
        section, _, key = path.rpartition(".")
        inner = full.get(section) if section else full
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            inner = {**inner, key: {"name": inner[key]}}
            full = {**full, section: inner} if section else inner
    return full


def leaves(content: Plain, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (path, value) of a nested mapping; lists are values."""
    for key, value in content.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from leaves(value, here)
        else:
            yield here, value


def value_at(content: Plain, path: str) -> Any:
    """Return what stands at a dotted path of a nested mapping; None if nothing does."""
    value: Any = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _locate(name: str, dirs: Sequence[Path], beside: Path | None) -> Path:
    if Path(name).suffix in SUFFIXES or name.startswith(("./", "../", "/")):
        path = ((beside or Path()) / name).resolve()
        if not path.is_file():
            raise RecipeError(
                f"There is no recipe file {path}. Give the path of a YAML file or a name in `pixelvla recipe list`."
            )
        return path
    found = [path for folder in dirs for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise RecipeError(
            f"Two recipes are named {name!r}: {found[0]} and {found[1]}. Give the path of the one you mean."
        )
    if not found:
        known = [file.name for file in files_in(dirs)]
        raise RecipeError(
            f"There is no recipe {name!r}.{suggest(name, known)} Searched: {', '.join(map(str, dirs))}. "
            "`pixelvla recipe list` shows what is there; a path must end in .yaml."
        )
    return found[0].resolve()


def _read(path: Path) -> Plain:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe: {_one_line(error)}. Correct the YAML there.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds a {type(content).__name__}; expected a mapping, such as `head: l1`.")
    return content


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
