"""Whether a model looks at prompts: where its first chunk leads, when the target is named and when it is pointed at.

    python -m bench.pointing RUN DATASET ANNOTATIONS

DATASET is a recording that RUN did not learn from (`pixelvla record ... --seed N --task pick --task move_near`), at the
begin of whose episodes the arm has far to go. "this" replaces the target's name by "this object", so that only the
prompt tells what is meant.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelvla_core.api import Sample

FRAMES = (0, 2, 4)
"""Of each episode: at the begin, when nothing is held."""

STEPS, FAR, CLOSE = 4, 0.02, 0.9
"""Steps of the chunk that are summed, the metres the expert goes in them at least, and the cosine that counts."""

BATCH = 24
ROWS = (
    ("named, no prompt", "none", 0.0),
    ("named, point", "point", 0.0),
    ("named, mask", "mask", 0.0),
    ("this, no prompt", "none", 1.0),
    ("this, point", "point", 1.0),
    ("this, line", "line", 1.0),
    ("this, box", "box", 1.0),
    ("this, mask", "mask", 1.0),
)


def samples(dataset: Path, annotations: Path, kind: str, deictic: float, horizon: int) -> list[Sample]:
    """The chosen frames with one kind of prompt; "none" draws points and takes them away, so that the words fit."""
    from pixelvla_lerobot.config import LeRobotConfig
    from pixelvla_lerobot.dataset import LeRobotSamples

    config = LeRobotConfig(
        root=str(dataset),
        annotations=str(annotations),
        image_size=112,
        prompts={"point" if kind == "none" else kind: 1.0},
        mask_frame="first",
        deictic=deictic,
        gripper_open=1.0,
        gripper_closed=0.0,
        rotation="euler_xyz_delta",
    )
    data = LeRobotSamples(config)
    rows = [row for row in range(len(data)) if int(data.frame_key(row).rpartition("frame")[2]) in FRAMES]
    found = [data.sample(row, horizon=horizon, rng=np.random.default_rng(row)) for row in rows]
    return [replace(sample, prompts={}, masks={}) for sample in found] if kind == "none" else found


def cosines(model: object, shown: list[Sample]) -> np.ndarray:
    """Cosine between where the model's first steps lead on the table and where the expert's do."""
    led = np.concatenate([model.act(shown[a : a + BATCH])[:, :STEPS, :2] for a in range(0, len(shown), BATCH)]).sum(1)
    meant = np.stack([sample.actions[:STEPS, :2] for sample in shown]).sum(1)
    far = np.linalg.norm(meant, axis=1) > FAR
    lengths = np.linalg.norm(led, axis=1) * np.linalg.norm(meant, axis=1)
    return ((led * meant).sum(1) / lengths.clip(1e-9))[far]


def main() -> None:
    from pixelvla_core.checkpoint import load

    run, dataset, annotations = map(Path, sys.argv[1:])
    model = load(run).model.eval()
    horizon = model.backbone.spec.action.horizon
    print(f"{'':20}  mean cosine  above {CLOSE}")
    for title, kind, deictic in ROWS:
        found = cosines(model, samples(dataset, annotations, kind, deictic, max(STEPS, horizon)))
        print(f"{title:20}  {found.mean():11.3f}  {100 * np.mean(found > CLOSE):7.1f} %  of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
