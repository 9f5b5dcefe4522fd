"""Procedural pictures for the table and the floor; a pure function of name, colour and seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 128


def texture(name: str, colour: tuple[float, float, float], seed: int) -> NDArray[np.uint8]:
    """Return ``uint8[SIZE, SIZE, 3]`` of one of: plain, checker, stripes, wood, marble, speckle."""
    rng = np.random.default_rng(seed)
    shade = _SHADES[name](rng)
    picture = np.array(colour)[None, None] * shade[..., None]
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _plain(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.ones((SIZE, SIZE))


def _checker(rng: np.random.Generator) -> NDArray[np.float64]:
    cell = int(rng.choice([8, 16]))
    i, j = np.indices((SIZE, SIZE)) // cell
    return np.where((i + j) % 2 == 0, 1.0, rng.uniform(0.6, 0.8))


def _stripes(rng: np.random.Generator) -> NDArray[np.float64]:
    i, j = np.indices((SIZE, SIZE))
    width = int(rng.choice([8, 16]))
    return np.where((i if rng.random() < 0.5 else j) // width % 2 == 0, 1.0, rng.uniform(0.6, 0.8))


def _wood(rng: np.random.Generator) -> NDArray[np.float64]:
    i, j = np.indices((SIZE, SIZE)) / SIZE
    rings = 6 * j + 0.5 * _noise(rng, 4) + 0.15 * np.sin(2 * np.pi * i)
    return 0.82 + 0.16 * np.sin(2 * np.pi * rings)


def _marble(rng: np.random.Generator) -> NDArray[np.float64]:
    i, j = np.indices((SIZE, SIZE)) / SIZE
    veins = np.abs(np.sin(2 * np.pi * (1.5 * i + j + 0.6 * _noise(rng, 4))))
    return 0.65 + 0.35 * veins**0.5


def _speckle(rng: np.random.Generator) -> NDArray[np.float64]:
    return 0.8 + 0.2 * _noise(rng, 32)


def _noise(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Smooth periodic noise in [-1, 1] with the given number of cells per side."""
    grid = rng.uniform(-1, 1, (cells, cells))
    at = np.arange(SIZE) * cells / SIZE
    low = at.astype(int)
    high, t = (low + 1) % cells, at - low
    rows = grid[low] * (1 - t)[:, None] + grid[high] * t[:, None]
    return rows[:, low] * (1 - t)[None] + rows[:, high] * t[None]


_SHADES = {
    "plain": _plain,
    "checker": _checker,
    "stripes": _stripes,
    "wood": _wood,
    "marble": _marble,
    "speckle": _speckle,
}
