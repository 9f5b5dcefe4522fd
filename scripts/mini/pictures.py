"""Labelled pictures of training scenes: what openvla-mini learns to see, and to speak about, before it acts.

    python scripts/mini/pictures.py OUT.npz [--scenes N] [--seed N] [--workers N]

Shapes: F pictures, N patches (row-major), K things in a scene.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from PIL import Image
from pixelvla_tabletop.expert import SPEED, TURN, Expert
from pixelvla_tabletop.furniture import HANDLE_X, HANDLE_Z
from pixelvla_tabletop.objects import COLOURS, TRAIN_SHAPES

SIZE, GRID = 112, 8
PATCHES = GRID * GRID
NOUNS = [shape.noun for shape in TRAIN_SHAPES]
REACH = 0.12
"""Metres that the outermost action ids stand for when they answer where something is."""

LIMITS = np.array([SPEED, SPEED, SPEED, TURN, TURN, TURN, 1], np.float32)
"""The largest action; the gripper's is 0 or 1."""

THINGS = 12
"""Rows of the per-scene table of things; 0 is the background."""

PLAIN, DRAWER, CABINET, GRIPPER = range(4)
"""What a thing without colour and noun is."""

STATE_SCALE = np.array([0.12, 0.12, 0.07, 0.1, 0.1, 0.25, 0.042], np.float32)
STATE_SHIFT = np.array([0, 0, 0.1, 0, 0, 0, 0.042], np.float32)


@dataclass
class Pictures:
    """Labelled pictures.

    Attributes:
        images: uint8[F, 112, 112, 3]; share: float16[F, N, K], how much of each patch a thing covers.
        centre: float32[F, K, 2], its centroid in pixels; things: int64[F, K, 3], colour, noun (-1: none) and kind.
        state: float32[F, 7], scaled: x, y, z, roll, pitch, yaw, opening.
        away: float32[F, K, 3], metres from the gripper's tool point to where each thing is grasped; NaN for the rest.
        actions: float32[F, K, 7], what the expert would do next to grasp each thing; NaN for the rest.
    """

    images: np.ndarray
    share: np.ndarray
    centre: np.ndarray
    things: np.ndarray
    state: np.ndarray
    away: np.ndarray
    actions: np.ndarray


def draw_scene(seed: int, poses: int = 6) -> Pictures:
    """One training scene, seen with the gripper in several random poses."""
    from pixelvla_tabletop.env import TabletopEnv

    env = TabletopEnv("all", "train", image_size=2 * SIZE)
    env.reset(seed=10_000_000 + seed)
    rng = np.random.default_rng(seed)
    images, segments, states, away, actions = [], [], [], [], []
    for pose in range(poses):
        _put_gripper(env, rng, near=pose % 2 == 1)
        picture = Image.fromarray(env.render())
        images.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
        segments.append(env.segmentation()[1::2, 1::2])
        state = env.state()
        states.append((np.array([*state[:6], state[6] + state[7]]) - STATE_SHIFT) / STATE_SCALE)
        away.append(_grasps(env) - state[:3])
        actions.append(_actions(env))
    things = _things(env)
    env.close()
    share, centre = _measure(np.stack(segments))
    state, grasps, acts = (np.stack(values).astype(np.float32) for values in (states, away, actions))
    return Pictures(np.stack(images), share, centre, np.tile(things, (poses, 1, 1)), state, grasps, acts)


def _put_gripper(env, rng: np.random.Generator, near: bool) -> None:
    """Anywhere over the table, or about to grasp something."""
    import mujoco

    low = np.array([-0.18, -0.20, 0.012, -0.12, -0.12, -0.35])
    high = np.array([0.12, 0.20, 0.22, 0.12, 0.12, 0.35])
    pose = rng.uniform(low, high)
    if near:
        places = _grasps(env)
        place = rng.choice(places[~np.isnan(places[:, 0])])
        pose[:3] = place + np.array([*rng.normal(0, 0.02, 2), rng.uniform(-0.01, 0.09)])
        pose[3:] *= rng.uniform()
    opening = float(rng.choice([0.042, rng.uniform(0.01, 0.042)]))
    values = (*pose.clip(low, high), opening, opening)
    for name, value in zip(("x", "y", "z", "roll", "pitch", "yaw", "finger_left", "finger_right"), values, strict=True):
        env.data.joint(name).qpos = value
    mujoco.mj_forward(env.model, env.data)


def _things(env) -> np.ndarray:
    """int64[K, 3]: colour, noun and kind of each id of the segmentation."""
    colours = list(COLOURS)
    rows = np.full((THINGS, 3), -1, np.int64)
    rows[:, 2] = PLAIN
    for index, item in enumerate(env.scene.items, start=1):
        rows[index, :2] = colours.index(item.colour), NOUNS.index(item.noun)
    for kind in (DRAWER, CABINET, GRIPPER):
        rows[len(env.scene.items) + kind, 2] = kind
    return rows


def _grasps(env) -> np.ndarray:
    """float[K, 3]: where the gripper would have to be to grasp each thing, in the world."""
    places = np.full((THINGS, 3), np.nan)
    for index in range(len(env.scene.items)):
        places[index + 1] = env.data.body(f"object{index}").xpos
    drawer = HANDLE_X - env.data.joint("drawer").qpos[0]
    places[len(env.scene.items) + DRAWER] = drawer, env.scene.cabinet_y, HANDLE_Z
    return places


def _actions(env) -> np.ndarray:
    """float[K, 7]: what the expert would do to pick each object, or to grasp the drawer's handle."""
    count = len(env.scene.items)
    rows = np.full((THINGS, 7), np.nan)
    for target in (*range(count), None):
        scene = replace(env.scene, task="open_drawer" if target is None else "pick", target=target)
        rows[count + DRAWER if target is None else target + 1] = Expert(env, scene).act()
    return rows


def _measure(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From int[F, 112, 112] ids to the share of each patch and the centroid of each thing."""
    frames, side = len(segments), SIZE // GRID
    share = np.zeros((frames, PATCHES, THINGS), np.float16)
    centre = np.zeros((frames, THINGS, 2), np.float32)
    place = np.arange(SIZE) + 0.5
    for thing in range(1, THINGS):
        mask = segments == thing
        share[..., thing] = mask.reshape(frames, GRID, side, GRID, side).mean((2, 4)).reshape(frames, PATCHES)
        area = mask.sum((1, 2)).clip(1)
        centre[:, thing, 0] = (mask.sum(1) * place).sum(1) / area
        centre[:, thing, 1] = (mask.sum(2) * place).sum(1) / area
    return share, centre


def draw(scenes: int, seed: int, workers: int) -> Pictures:
    """Draw many scenes in parallel."""
    seeds = range(seed * scenes, (seed + 1) * scenes)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(draw_scene, seeds, chunksize=20))
    names = Pictures.__dataclass_fields__
    return Pictures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def load(path: Path) -> Pictures:
    """Read what ``main`` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Pictures(**{name: arrays[name] for name in Pictures.__dataclass_fields__})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    start = time.time()
    data = draw(args.scenes, args.seed, args.workers)
    np.savez(args.out, **vars(data))
    print(f"{len(data.images)} pictures of {args.scenes} scenes in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
