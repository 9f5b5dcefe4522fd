"""Warm up openvla-mini's vision towers on dense labels from the simulator.

    python scripts/mini/warm_up.py START OUT [--scenes N] [--steps N] [--seed N]

OpenVLA's towers come pretrained (DINOv2, SigLIP). There is nothing to download here, so the mini towers learn to see
instead of being taught by action tokens alone: what stands on each patch, where its centre is, and how the gripper
stands. The label heads are thrown away; only the towers' weights go into OUT. Only training scenes are shown.

Shapes: B batch, N patches (row-major), K things in a scene.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import torch
from PIL import Image
from pixelvla_openvla import OpenVLA
from pixelvla_tabletop.objects import COLOURS, TRAIN_SHAPES
from torch import Tensor, nn

SIZE, GRID = 112, 8
PATCHES = GRID * GRID
NOUNS = [shape.noun for shape in TRAIN_SHAPES]
THINGS = 12
"""Rows of the per-scene table of things; 0 is the background."""

PLAIN, DRAWER, CABINET, GRIPPER = range(4)
"""What a thing without colour and noun is."""

SEEN = 0.06
"""A thing stands on a patch if it covers this share of it."""

STATE_SCALE = np.array([0.12, 0.12, 0.07, 0.1, 0.1, 0.25, 0.042], np.float32)
STATE_SHIFT = np.array([0, 0, 0.1, 0, 0, 0, 0.042], np.float32)


@dataclass
class Pictures:
    """Labelled pictures.

    Attributes:
        images: uint8[F, 112, 112, 3]; share: float16[F, N, K], how much of each patch a thing covers.
        centre: float32[F, K, 2], its centroid in pixels; things: int64[F, K, 3], colour, noun (-1: none) and kind.
        state: float32[F, 7], scaled: x, y, z, roll, pitch, yaw, opening.
    """

    images: np.ndarray
    share: np.ndarray
    centre: np.ndarray
    things: np.ndarray
    state: np.ndarray


def draw_scene(seed: int, poses: int = 6) -> Pictures:
    """One training scene, seen with the gripper in several random poses."""
    from pixelvla_tabletop.env import TabletopEnv

    env = TabletopEnv("all", "train", image_size=2 * SIZE)
    env.reset(seed=10_000_000 + seed)
    rng = np.random.default_rng(seed)
    images, segments, states = [], [], []
    for _ in range(poses):
        _put_gripper(env, rng)
        picture = Image.fromarray(env.render())
        images.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
        segments.append(env.segmentation()[1::2, 1::2])
        state = env.state()
        states.append((np.array([*state[:6], state[6] + state[7]]) - STATE_SHIFT) / STATE_SCALE)
    things = _things(env)
    env.close()
    share, centre = _measure(np.stack(segments))
    return Pictures(
        np.stack(images), share, centre, np.tile(things, (poses, 1, 1)), np.stack(states).astype(np.float32)
    )


def _put_gripper(env, rng: np.random.Generator) -> None:
    import mujoco

    low = np.array([-0.18, -0.20, 0.012, -0.12, -0.12, -0.35])
    high = np.array([0.12, 0.20, 0.22, 0.12, 0.12, 0.35])
    opening = float(rng.choice([0.042, rng.uniform(0.01, 0.042)]))
    values = (*rng.uniform(low, high), opening, opening)
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
    names = ("images", "share", "centre", "things", "state")
    return Pictures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Labels(nn.Module):
    """Linear read-outs of the patch features, and the loss against what the simulator knows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = (len(COLOURS), len(NOUNS), 3, 2, len(STATE_SCALE))
        self.read = nn.Linear(width, sum(self.sizes))

    def forward(self, features_BNC: Tensor, data: Pictures, rows: np.ndarray) -> dict[str, Tensor]:
        """Losses by name, for the frames ``rows`` of ``data``."""
        colour, noun, kind, offset, state = self.read(features_BNC).float().split(self.sizes, -1)
        share = data.share[rows].astype(np.float32)
        things = data.things[rows]
        is_object, is_drawer = things[..., 0] >= 0, things[..., 2] == DRAWER
        seen = share * (share > SEEN)
        main, has_object = _main(seen * is_object[:, None])
        located, has_thing = _main(seen * (is_object | is_drawer)[:, None])
        kinds = np.stack([(seen * (things[..., 2] == k)[:, None]).max(-1) > 0 for k in (DRAWER, CABINET, GRIPPER)], -1)
        gripper = torch.from_numpy(kinds[..., 2])
        labels = np.where(has_object[..., None], np.take_along_axis(things, main[..., None], 1)[..., :2], -100)
        away = (np.take_along_axis(data.centre[rows], located[..., None], 1) - _patch_centres()) * (GRID / SIZE)
        cross, smooth = nn.functional.cross_entropy, nn.functional.smooth_l1_loss
        there = torch.from_numpy(has_thing)
        wanted = torch.from_numpy(data.state[rows])[:, None].expand_as(state)
        return {
            "colour": cross(colour.flatten(0, 1), torch.from_numpy(labels[..., 0]).flatten()),
            "noun": cross(noun.flatten(0, 1), torch.from_numpy(labels[..., 1]).flatten()),
            "kind": nn.functional.binary_cross_entropy_with_logits(kind, torch.from_numpy(kinds).float()),
            "object": nn.functional.softplus(-colour.logsumexp(-1)[there]).mean()
            + nn.functional.softplus(colour.logsumexp(-1)[~there]).mean(),
            "offset": smooth(offset[there], torch.from_numpy(away.astype(np.float32))[there], beta=0.2),
            "state": smooth(state[gripper], wanted[gripper], beta=0.2),
        }


def _main(seen_BNK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thing that covers most of each patch, and whether there is one."""
    return seen_BNK.argmax(-1), seen_BNK.max(-1) > 0


def _patch_centres() -> np.ndarray:
    index = np.arange(PATCHES)
    return (np.stack([index % GRID, index // GRID], -1) + 0.5) * (SIZE / GRID)


def train(model: OpenVLA, data: Pictures, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """Train the towers; the last 2 % of the frames are held out and reported at the end."""
    torch.manual_seed(seed)
    towers, labels = model.vision_backbone.train(), Labels(model.vision_backbone.width)
    weights = [*towers.parameters(), *labels.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.05, fused=True)
    warm = min(100, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / warm) * max(0.02, 0.5 * (1 + np.cos(np.pi * s / steps)))
    )
    rng, held_out, start = np.random.default_rng(seed), len(data.images) // 50, time.time()
    for step in range(1, steps + 1):
        rows = rng.integers(0, len(data.images) - held_out, batch_size)
        losses = labels(towers(_pixels(model, data.images[rows]))[0], data, rows)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps:
            rate = step * batch_size / (time.time() - start)
            print(f"step {step}/{steps}  {rate:.0f} pictures/s  {_words(losses)}", flush=True)
    with torch.no_grad():
        rows = np.arange(len(data.images) - held_out, len(data.images))[:512]
        print("held out: ", _words(labels(towers.eval()(_pixels(model, data.images[rows]))[0], data, rows)))


def _pixels(model: OpenVLA, images_BHW3: np.ndarray) -> Tensor:
    """What the image processor gives for pictures that already have the towers' size."""
    pixels_B3HW = torch.from_numpy(np.ascontiguousarray(images_BHW3.transpose(0, 3, 1, 2))).float() / 255
    columns = [(torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)) for mean, std in model.images.norms]
    return torch.cat([(pixels_B3HW - mean) / std for mean, std in columns], 1)


def _words(losses: dict[str, Tensor]) -> str:
    return "  ".join(f"{name} {value.item():.3f}" for name, value in losses.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    began = time.time()
    data = draw(args.scenes, args.seed, args.workers)
    print(f"{len(data.images)} pictures of {args.scenes} scenes in {time.time() - began:.0f} s", flush=True)
    model = OpenVLA.from_pretrained(args.start)
    train(model, data, args.steps, args.batch_size, args.lr, args.seed)
    model.save_pretrained(args.out, dtype=torch.float32)
    shutil.copy(args.start / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()
