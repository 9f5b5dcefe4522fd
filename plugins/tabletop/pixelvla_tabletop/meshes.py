"""Triangle meshes for shapes that are no primitive: bodies of revolution and extruded outlines.

Every function returns ``(vertices float32[V, 3], faces int32[F, 3])`` with faces wound so that normals point outwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]


def revolve(profile: list[tuple[float, float]], segments: int = 20) -> Mesh:
    """Turn a closed outline of ``(radius, z)`` points, counter-clockwise in the (r, z) plane, around the z axis."""
    angles = np.linspace(0.0, 2 * np.pi, segments, endpoint=False)
    rings = [[(r * np.cos(a), r * np.sin(a), z) for r, z in profile] for a in angles]
    vertices = np.array(rings, np.float32).reshape(-1, 3)
    count = len(profile)
    faces = []
    for i in range(segments):
        here, there = i * count, ((i + 1) % segments) * count
        for j in range(count):
            k = (j + 1) % count
            faces += [(here + j, there + j, there + k), (here + j, there + k, here + k)]
    return _drop_degenerate(vertices, np.array(faces, np.int32))


def extrude(outline: list[tuple[float, float]], half_height: float) -> Mesh:
    """Raise a star-shaped outline of ``(x, y)`` points, counter-clockwise around the origin, to ``2 * half_height``."""
    count = len(outline)
    low = [(x, y, -half_height) for x, y in outline] + [(0.0, 0.0, -half_height)]
    high = [(x, y, half_height) for x, y in outline] + [(0.0, 0.0, half_height)]
    bottom, top, lift = count, 2 * count + 1, count + 1
    faces = []
    for j in range(count):
        k = (j + 1) % count
        faces += [(j, k, k + lift), (j, k + lift, j + lift), (bottom, k, j), (top, j + lift, k + lift)]
    return np.array(low + high, np.float32), np.array(faces, np.int32)


def star_outline(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """Corners of a star with the given number of points; the first one points along +x."""
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def heart_outline(radius: float, corners: int = 24) -> list[tuple[float, float]]:
    """Corners of a heart about ``2 * radius`` wide whose tip points to -x."""
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    along = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    across = np.sin(t) ** 3
    return [(float(radius * (x + 0.1)), float(-radius * y)) for x, y in zip(along, across, strict=True)][::-1]


def ring_profile(radius: float, thickness: float, corners: int = 8) -> list[tuple[float, float]]:
    """The cross-section of a torus whose tube of radius ``thickness`` runs at ``radius`` from the axis."""
    angles = np.arange(corners) * 2 * np.pi / corners
    return [(float(radius + thickness * np.cos(a)), float(thickness * np.sin(a))) for a in angles]


def _drop_degenerate(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> Mesh:
    """Remove the triangles without area that appear where an outline touches the axis."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return vertices, faces[area > 1e-12]
