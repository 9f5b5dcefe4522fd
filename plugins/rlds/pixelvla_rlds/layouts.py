"""Which features of an RLDS dataset become action, state, image and instruction."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelvla_core.errors import DataError, suggest

_POSE = ("x", "y", "z", "roll", "pitch", "yaw")
_DELTA = ("dx", "dy", "dz", "droll", "dpitch", "dyaw")
_STEPS = "steps/"
_INSTRUCTIONS = (
    "steps/language_instruction",
    "steps/observation/natural_language_instruction",
    "steps/observation/language_instruction",
    "steps/natural_language_instruction",
)


@dataclass(frozen=True)
class Layout:
    """Names of features, and of the dimensions that they make together in this order.

    Attributes:
        action: features of the action.
        action_names: name of each dimension.
        state: features of the state.
        state_names: name of each dimension.
        image: feature of the camera.
        instruction: feature of the instruction.
        fps: frames per second, None if unknown.
    """

    action: tuple[str, ...]
    action_names: tuple[str, ...]
    state: tuple[str, ...]
    state_names: tuple[str, ...]
    image: str
    instruction: str
    fps: int | None = None


FRACTAL = Layout(
    action=("steps/action/world_vector", "steps/action/rotation_delta", "steps/action/gripper_closedness_action"),
    action_names=(*_DELTA, "gripper"),
    state=("steps/observation/base_pose_tool_reached", "steps/observation/gripper_closed"),
    state_names=("x", "y", "z", "qx", "qy", "qz", "qw", "gripper"),
    image="steps/observation/image",
    instruction="steps/observation/natural_language_instruction",
    fps=3,
)
BRIDGE = Layout(
    action=("steps/action",),
    action_names=(*_DELTA, "gripper"),
    state=("steps/observation/state",),
    state_names=(*_POSE, "gripper"),
    image="steps/observation/image_0",
    instruction="steps/language_instruction",
    fps=5,
)
BRIDGE_OXE = Layout(
    action=("steps/action/world_vector", "steps/action/rotation_delta", "steps/action/open_gripper"),
    action_names=(*_DELTA, "gripper"),
    state=("steps/observation/state",),
    state_names=(*_POSE, "gripper"),
    image="steps/observation/image",
    instruction="steps/observation/natural_language_instruction",
    fps=5,
)
LAYOUTS = {"fractal": FRACTAL, "bridge": BRIDGE, "bridge_oxe": BRIDGE_OXE}
"""fractal20220817_data; Bridge v2 as its authors publish it (bridge_dataset); Bridge as in Open X-Embodiment."""


@dataclass(frozen=True)
class Feature:
    """One flattened feature: its shape per step, and its kind: "image", "tensor" or "text"."""

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_features(folder: Path) -> dict[str, Feature]:
    """Read ``features.json`` of a TFDS folder: path such as "steps/observation/image" -> feature.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / "features.json"
    try:
        return dict(_flatten(json.loads(path.read_text(encoding="utf-8")), ""))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is no TFDS folder: it has no features.json. Give the folder of one version, which holds "
            "dataset_info.json, features.json and *.tfrecord-* files, such as fractal20220817_data/0.1.0."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}. Download it again.") from error


def _flatten(node: Mapping[str, Any], path: str) -> list[tuple[str, Feature]]:
    if "featuresDict" in node:
        found = []
        for name, child in node["featuresDict"]["features"].items():
            found += _flatten(child, f"{path}/{name}" if path else name)
        return found
    if "sequence" in node:
        return _flatten(node["sequence"]["feature"], path)
    for kind in ("image", "tensor", "text"):
        if kind in node:
            shape = tuple(int(side) for side in node[kind].get("shape", {}).get("dimensions", ()))
            return [(path, Feature(kind, shape, node[kind].get("dtype", "")))]
    return []


def choose(features: Mapping[str, Feature], name: str, camera: str | None) -> Layout:
    """Return the layout of that name, or for "auto" the first that fits, else one made from common names.

    Raises:
        DataError: the named layout, or the camera, is not in the dataset, or nothing fits.
    """
    if name != "auto":
        chosen = LAYOUTS[name]
        if missing := _missing(chosen, features):
            raise DataError(f"The layout {name} needs {', '.join(missing)}; the dataset has {', '.join(features)}.")
    else:
        fitting = [layout for layout in LAYOUTS.values() if not _missing(layout, features)]
        chosen = fitting[0] if fitting else _generic(features)
    return Layout(**(vars(chosen) | {"image": _camera(features, camera)})) if camera else chosen


def _missing(layout: Layout, features: Mapping[str, Feature]) -> list[str]:
    wrong = [name for name in (*layout.action, *layout.state, layout.image, layout.instruction) if name not in features]
    sizes = ((layout.action, layout.action_names), (layout.state, layout.state_names))
    if not wrong:
        wrong += [
            f"{' + '.join(parts)} with {len(names)} values"
            for parts, names in sizes
            if sum(features[part].size for part in parts) != len(names)
        ]
    return wrong


def _generic(features: Mapping[str, Feature]) -> Layout:
    action = _numbers(features, "steps/action")
    state = _numbers(features, "steps/observation/state")
    instruction = next((name for name in _INSTRUCTIONS if name in features), None)
    images = [name for name, feature in features.items() if feature.kind == "image" and "depth" not in name]
    if not (action and instruction and images):
        raise DataError(
            "An RLDS dataset needs numbers in steps/action, a text such as steps/language_instruction and an image; "
            f"this one has {', '.join(features)}."
        )
    return Layout(action, _names(features, action), state, _names(features, state), images[0], instruction)


def _numbers(features: Mapping[str, Feature], root: str) -> tuple[str, ...]:
    return tuple(
        name
        for name, feature in features.items()
        if feature.kind == "tensor"
        and feature.dtype.startswith(("float", "int", "bool"))
        and (name == root or name.startswith(f"{root}/"))
    )


def _names(features: Mapping[str, Feature], parts: tuple[str, ...]) -> tuple[str, ...]:
    """Such as action_0, or world_vector_0 for nested ones."""
    return tuple(
        f"{part.rpartition('/')[2]}_{index}" if features[part].shape else part.rpartition("/")[2]
        for part in parts
        for index in range(features[part].size)
    )


def _camera(features: Mapping[str, Feature], camera: str) -> str:
    images = [name for name, feature in features.items() if feature.kind == "image"]
    for name in (camera, f"steps/observation/{camera}", _STEPS + camera):
        if name in images:
            return name
    short = [name.rpartition("/")[2] for name in images]
    raise DataError(
        f"The dataset has no camera {camera!r}.{suggest(camera, short)} It has {', '.join(short) or 'none'}."
    )
