"""What one episode looks like, drawn from (task, split, axis, seed) by NumPy alone.

The result is plain data; `model.py` builds the physics from it. The random stream is keyed by all four values, so
the same number used as a seed in two splits has nothing in common but the number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .furniture import HANDLE_X, HANDLE_Z
from .language import instruction
from .objects import HELD_OUT_NOUN_PAIRS, HELD_OUT_PAIRS, SHAPES, TRAIN_PAIRS, Shape
from .spec import AXES, OBJECT_TASKS, SPLITS, TASKS
from .view import camera_frame, hand_hides

Pair = tuple[str, str]

#: Where objects may lie: x low, x high, y low, y high. The drawer tasks keep the drawer's path free.
REGION = (-0.15, 0.095, -0.175, 0.175)
DRAWER_REGION = (-0.15, -0.035, -0.175, 0.175)
#: Two objects are apart by the first in x or the second in y: the open fingers, side by side in y, must fit between.
SPACING = (0.072, 0.098)
#: Least distance between the object to be moved and the one to move it to.
NEAR_START = 0.14


@dataclass(frozen=True)
class Item:
    """One object: what it is and where it starts."""

    colour: str
    noun: str
    x: float
    y: float
    yaw: float

    @property
    def shape(self) -> Shape:
        return SHAPES[self.noun]

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.noun}"


@dataclass(frozen=True)
class Look:
    """Everything that only changes the picture."""

    camera_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)  # azimuth, elevation (radians), distance (metres)
    light_direction: tuple[float, float, float] = (0.06, -0.04, -1.0)
    light_colour: tuple[float, float, float] = (0.50, 0.50, 0.50)
    ambient: float = 0.38
    floor: str = "plain"
    floor_colour: tuple[float, float, float] = (0.28, 0.31, 0.35)
    table: str = "plain"
    table_colour: tuple[float, float, float] = (0.80, 0.76, 0.69)


@dataclass(frozen=True)
class Scene:
    """One episode before it starts."""

    task: str
    split: str
    axis: str | None
    seed: int
    instruction: str
    items: tuple[Item, ...]
    target: int | None
    reference: int | None
    target_kind: str  # "seen", "pair", "noun", or "drawer"
    cabinet_y: float
    drawer_open: float
    start: tuple[float, float, float, float, float, float]
    look: Look

    @property
    def target_phrase(self) -> str:
        return "drawer" if self.target is None else self.items[self.target].phrase

    @property
    def reference_phrase(self) -> str | None:
        return None if self.reference is None else self.items[self.reference].phrase


def sample_scene(task: str, split: str, axis: str | None, seed: int) -> Scene:
    """Draw the episode that belongs to these four values; the same values always give the same episode.

    Args:
        task: one of `spec.TASKS`.
        split: one of `spec.SPLITS`.
        axis: for split ``variants`` one of `spec.AXES`, or None to let the seed choose; None otherwise.
        seed: any number >= 0.
    """
    if split == "variants" and axis is None:
        axis = AXES[seed % len(AXES)]
    key = [SPLITS.index(split), TASKS.index(task), 0 if axis is None else 1 + AXES.index(axis), seed]
    rng = np.random.default_rng(np.random.SeedSequence(key))
    for _ in range(1000):
        scene = _attempt(rng, task, split, axis, seed)
        if scene is not None:
            return scene
    raise RuntimeError(f"no layout found for {task}/{split}/{axis}, seed {seed}")


def _attempt(rng: np.random.Generator, task: str, split: str, axis: str | None, seed: int) -> Scene | None:
    extra = 2 if axis == "distractors" else 0
    on_object = task in OBJECT_TASKS
    kind, target = _draw_target(rng, split) if on_object else ("drawer", None)
    count = int(rng.integers(3, 6)) + extra if on_object else int(rng.integers(1, 4)) + extra
    pairs = _draw_pairs(rng, target, count, split, axis)
    spots = _draw_spots(rng, len(pairs), REGION if on_object else DRAWER_REGION)
    if spots is None:
        return None
    items = tuple(
        Item(colour, noun, x, y, float(rng.uniform(-0.35, 0.35)))
        for (colour, noun), (x, y) in zip(pairs, spots, strict=True)
    )
    reference = _draw_reference(rng, items) if task == "move_near" else None
    if task == "move_near" and reference is None:
        return None
    scene = Scene(
        task=task,
        split=split,
        axis=axis,
        seed=seed,
        instruction="",
        items=items,
        target=0 if on_object else None,
        reference=reference,
        target_kind=kind,
        cabinet_y=float(rng.uniform(-0.07, 0.07)),
        drawer_open=float(rng.uniform(0.06, 0.09)) if task == "close_drawer" else 0.0,
        start=_draw_start(rng),
        look=_draw_look(rng, axis),
    )
    if _hidden(scene):
        return None
    choice = int(rng.integers(1000))
    return _shuffled(
        rng,
        replace(scene, instruction=instruction(task, choice, scene.target_phrase, scene.reference_phrase)),
    )


def _draw_target(rng: np.random.Generator, split: str) -> tuple[str, Pair]:
    if split != "unseen_objects":
        return "seen", TRAIN_PAIRS[rng.integers(len(TRAIN_PAIRS))]
    if rng.random() < 0.5:
        held_out = sorted(HELD_OUT_PAIRS)
        return "pair", held_out[rng.integers(len(held_out))]
    return "noun", HELD_OUT_NOUN_PAIRS[rng.integers(len(HELD_OUT_NOUN_PAIRS))]


def _draw_pairs(rng: np.random.Generator, target: Pair | None, count: int, split: str, axis: str | None) -> list[Pair]:
    """The objects on the table, the target first; the next two usually share its colour or its shape."""
    allowed = list(TRAIN_PAIRS)
    if split == "unseen_objects" or axis == "distractors":
        allowed += [*sorted(HELD_OUT_PAIRS), *HELD_OUT_NOUN_PAIRS[:: 1 if split == "unseen_objects" else 2]]
    pairs = [] if target is None else [target]
    if target is not None:
        same_colour = [p for p in allowed if p[0] == target[0] and p[1] != target[1]]
        same_shape = [p for p in allowed if p[1] == target[1] and p[0] != target[0]]
        for alike in (same_colour, same_shape):
            if alike and rng.random() < 0.8:
                pairs.append(alike[rng.integers(len(alike))])
    while len(pairs) < count:
        pair = allowed[rng.integers(len(allowed))]
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def _draw_spots(
    rng: np.random.Generator, count: int, region: tuple[float, float, float, float]
) -> list[tuple[float, float]] | None:
    x_low, x_high, y_low, y_high = region
    spots: list[tuple[float, float]] = []
    for _ in range(60 * count):
        x, y = float(rng.uniform(x_low, x_high)), float(rng.uniform(y_low, y_high))
        if all(abs(x - a) > SPACING[0] or abs(y - b) > SPACING[1] for a, b in spots):
            spots.append((x, y))
        if len(spots) == count:
            return spots
    return None


def _draw_reference(rng: np.random.Generator, items: tuple[Item, ...]) -> int | None:
    """An object far enough from the target, and known from training: in `unseen_objects` only the target is new."""
    target = items[0]
    known = [i for i, item in enumerate(items) if i and (item.colour, item.noun) in TRAIN_PAIRS]
    far = [i for i in known if np.hypot(items[i].x - target.x, items[i].y - target.y) > NEAR_START]
    return int(far[rng.integers(len(far))]) if far else None


def _draw_start(rng: np.random.Generator) -> tuple[float, float, float, float, float, float]:
    """Where the gripper starts: anywhere above the table, slightly tilted and turned."""
    low = np.array([-0.14, -0.14, 0.13, -0.1, -0.1, -0.25])
    high = np.array([0.04, 0.14, 0.19, 0.1, 0.1, 0.25])
    x, y, z, roll, pitch, yaw = (float(v) for v in rng.uniform(low, high))
    return x, y, z, roll, pitch, yaw


def _hidden(scene: Scene) -> bool:
    """Whether the gripper covers, at the start, something the task is about: nobody could point at it then."""
    camera, tool = camera_frame(scene.look.camera_offset)[0], np.array(scene.start[:3])
    if scene.target is None:
        handle = np.array([HANDLE_X - scene.drawer_open, scene.cabinet_y, HANDLE_Z])
        return hand_hides(handle, tool, camera, 0.035)
    items = [scene.items[i] for i in (scene.target, scene.reference) if i is not None]
    return any(hand_hides(np.array([it.x, it.y, it.shape.half_height]), tool, camera, 0.025) for it in items)


def _shuffled(rng: np.random.Generator, scene: Scene) -> Scene:
    """Reorder the objects so that an index says nothing about an object's role."""
    order = [int(i) for i in rng.permutation(len(scene.items))]
    moved: dict[int | None, int | None] = {None: None}
    moved.update({old: new for new, old in enumerate(order)})
    items = tuple(scene.items[i] for i in order)
    return replace(scene, items=items, target=moved[scene.target], reference=moved[scene.reference])


def _draw_look(rng: np.random.Generator, axis: str | None) -> Look:
    look = Look(
        light_direction=(float(rng.uniform(-0.08, 0.12)), float(rng.uniform(-0.1, 0.1)), -1.0),
        light_colour=_grey(float(rng.uniform(0.45, 0.55))),
        table_colour=_jitter(rng, (0.80, 0.76, 0.69), 0.03),
        floor_colour=_jitter(rng, (0.28, 0.31, 0.35), 0.03),
    )
    if axis == "camera":
        return replace(look, camera_offset=_draw_camera(rng))
    if axis == "lighting":
        return _draw_light(rng, look)
    if axis == "background":
        return replace(look, floor=_choose(rng, _TEXTURES), floor_colour=_any_colour(rng))
    if axis == "table_texture":
        return replace(look, table=_choose(rng, _TEXTURES), table_colour=_any_colour(rng, saturation=0.4))
    return look


_TEXTURES = ("checker", "stripes", "wood", "marble", "speckle")


def _draw_camera(rng: np.random.Generator) -> tuple[float, float, float]:
    azimuth = float(rng.choice([-1, 1]) * rng.uniform(0.08, 0.20))
    return azimuth, float(rng.uniform(-0.10, 0.10)), float(rng.uniform(-0.04, 0.08))


def _draw_light(rng: np.random.Generator, look: Look) -> Look:
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.55)
    tint = 1.0 + rng.uniform(-0.15, 0.15, 3)
    level = float(rng.choice([rng.uniform(0.22, 0.38), rng.uniform(0.58, 0.70)]))
    r, g, b = (float(v) for v in np.clip(level * tint, 0, 1))
    return replace(
        look,
        light_direction=(float(tilt * np.cos(angle)), float(tilt * np.sin(angle)), -1.0),
        light_colour=(r, g, b),
        ambient=float(rng.uniform(0.22, 0.42)),
    )


def _choose(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _grey(level: float) -> tuple[float, float, float]:
    return level, level, level


def _jitter(rng: np.random.Generator, colour: tuple[float, float, float], width: float) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in np.clip(np.array(colour) + rng.uniform(-width, width, 3), 0, 1))
    return r, g, b


def _any_colour(rng: np.random.Generator, saturation: float = 0.7) -> tuple[float, float, float]:
    base = rng.uniform(0.35, 0.85)
    r, g, b = (float(v) for v in np.clip(base + saturation * rng.uniform(-0.4, 0.4, 3), 0.1, 0.95))
    return r, g, b
