"""The catalogue: which shapes and colours there are, and which of them training never shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from .meshes import Mesh, extrude, heart_outline, revolve, ring_profile, star_outline

COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.86, 0.07, 0.07),
    "orange": (1.0, 0.46, 0.02),
    "yellow": (0.96, 0.86, 0.06),
    "green": (0.08, 0.60, 0.13),
    "cyan": (0.10, 0.80, 0.86),
    "blue": (0.08, 0.17, 0.86),
    "purple": (0.50, 0.12, 0.66),
}


@dataclass(frozen=True)
class Part:
    """One geom of an object in the object's frame; sizes are MuJoCo's half sizes in metres."""

    kind: str
    size: tuple[float, ...] = ()
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    mesh: Mesh | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Shape:
    """A kind of object.

    Attributes:
        visual: the parts that are seen; they also collide where ``collision`` is empty.
        collision: simpler stand-ins that are felt but not seen.
        half_height: height of the centre above the table when the object rests.
        yaw_period: the object looks the same to the gripper after this turn in radians; 0 for a round one.
    """

    noun: str
    visual: tuple[Part, ...]
    half_height: float
    yaw_period: float = 0.0
    collision: tuple[Part, ...] = ()


_ALONG_X = (0.70710678, 0.0, 0.70710678, 0.0)
_CONE = revolve([(0.0, -0.022), (0.025, -0.022), (0.0, 0.030)])
_RING = revolve(ring_profile(0.020, 0.009))
_STAR = extrude(star_outline(5, 0.030, 0.013), 0.013)
_BOWL = revolve([(0.0, -0.022), (0.020, -0.022), (0.020, 0.022), (0.016, 0.022), (0.016, -0.014), (0.0, -0.014)])
_HEART = extrude(heart_outline(0.026), 0.013)
_TRIANGLE = extrude(star_outline(3, 0.033, 0.0166), 0.013)

TRAIN_SHAPES: Final = (
    Shape("cube", (Part("box", (0.021, 0.021, 0.021)),), 0.021, np.pi / 2),
    Shape("cylinder", (Part("cylinder", (0.020, 0.024)),), 0.024),
    Shape("ball", (Part("sphere", (0.023,)),), 0.023),
    Shape("pill", (Part("capsule", (0.016, 0.018), quat=_ALONG_X),), 0.016, np.pi),
    Shape("brick", (Part("box", (0.034, 0.015, 0.015)),), 0.015, np.pi),
    Shape(
        "cross",
        (Part("box", (0.027, 0.009, 0.014)), Part("box", (0.009, 0.027, 0.0139))),
        0.014,
        np.pi / 2,
    ),
)

HELD_OUT_SHAPES: Final = (
    Shape("star", (Part("mesh", mesh=_STAR),), 0.013, 0.0, (Part("cylinder", (0.022, 0.013)),)),
    Shape("ring", (Part("mesh", mesh=_RING),), 0.009, 0.0, (Part("cylinder", (0.029, 0.009)),)),
    Shape("cone", (Part("mesh", mesh=_CONE),), 0.022, 0.0, (Part("cylinder", (0.018, 0.022)),)),
    Shape(
        "mug",
        (Part("mesh", mesh=_BOWL), Part("box", (0.009, 0.004, 0.012), (-0.026, 0.0, 0.0))),
        0.022,
        np.pi,
        (Part("cylinder", (0.020, 0.022)),),
    ),
    Shape("heart", (Part("mesh", mesh=_HEART),), 0.013, 0.0, (Part("cylinder", (0.023, 0.013)),)),
    Shape("triangle", (Part("mesh", mesh=_TRIANGLE),), 0.013, 0.0, (Part("cylinder", (0.022, 0.013)),)),
)

SHAPES: Final[dict[str, Shape]] = {shape.noun: shape for shape in (*TRAIN_SHAPES, *HELD_OUT_SHAPES)}

#: One pair per colour, spread over the shapes: each colour and each noun is known from training, the pair is not.
HELD_OUT_PAIRS: Final = frozenset(
    {
        ("red", "ball"),
        ("orange", "cross"),
        ("yellow", "brick"),
        ("green", "cube"),
        ("cyan", "pill"),
        ("blue", "cylinder"),
        ("purple", "ball"),
    }
)

TRAIN_PAIRS: Final = tuple(
    (colour, shape.noun) for shape in TRAIN_SHAPES for colour in COLOURS if (colour, shape.noun) not in HELD_OUT_PAIRS
)
HELD_OUT_NOUN_PAIRS: Final = tuple((colour, shape.noun) for shape in HELD_OUT_SHAPES for colour in COLOURS)
