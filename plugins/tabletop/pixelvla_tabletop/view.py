"""Where the camera stands, and whether the gripper is in its way. Geometry only, no MuJoCo."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Vertical field of view in degrees, the point looked at, its distance and the angle below the horizon.
FOVY = 31.0
_LOOK_AT = np.array([0.035, 0.0, 0.05])
_DISTANCE = 0.88
_ELEVATION = math.radians(53)

#: Boxes around the open hand relative to the tool point, (centre, half size): palm, post, left finger, right finger.
_HAND = (
    ((0.0, 0.0, 0.094), (0.018, 0.058, 0.012)),
    ((0.0, 0.0, 0.132), (0.016, 0.016, 0.030)),
    ((0.0, 0.047, 0.040), (0.011, 0.005, 0.044)),
    ((0.0, -0.047, 0.040), (0.011, 0.005, 0.044)),
)

Vector = NDArray[np.float64]


def camera_frame(offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple[Vector, Vector, Vector]:
    """Return position, right and up of the camera: steep enough to read x and y, flat enough to read the height.

    Args:
        offset: change of azimuth and elevation in radians and of distance in metres.
    """
    azimuth, elevation, distance = offset[0], _ELEVATION + offset[1], _DISTANCE + offset[2]
    level = math.cos(elevation)
    forward = np.array([level * math.cos(azimuth), level * math.sin(azimuth), -math.sin(elevation)])
    right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
    return _LOOK_AT - distance * forward, right, np.cross(right, forward)


def hand_hides(point: Vector, tool: Vector, camera: Vector, radius: float) -> bool:
    """Return whether the open, upright hand at ``tool`` covers part of a ball of that radius around ``point``."""
    towards = camera - point
    for centre, half in _HAND:
        with np.errstate(divide="ignore"):
            low = (tool + centre - half - radius - point) / towards
            high = (tool + centre + half + radius - point) / towards
        enters, leaves = np.minimum(low, high).max(), np.maximum(low, high).min()
        if max(enters, 0.0) <= min(leaves, 1.0):
            return True
    return False
