"""Write pi0-mini before any training: LeRobot's own classes at a small size, seeded random weights, its tokenizer.

    python scripts/mini/start_pi0.py DATASET OUT

Words are those of DATASET's instructions, so a noun that the demonstrations never use is an unknown word for the model;
the statistics of its actions and states lie beside the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pixelvla_pi0.sizes import Sizes
from pixelvla_pi0.start import words_of, write_random

KEY, CAMERA = "tabletop", "front"
SIZES = Sizes(
    width=128,
    mlp=384,
    depth=5,
    head_width=16,
    expert_width=96,
    expert_mlp=256,
    vision_width=128,
    vision_depth=5,
    vision_heads=4,
    vision_mlp=512,
    patch=14,
    vocabulary=128,
)
IMAGE, HORIZON, TEXT = 112, 8, 24
CONFIG = {
    "chunk_size": HORIZON,
    "n_action_steps": HORIZON,
    "tokenizer_max_length": TEXT,
}
EXTRA = (", refer to", "this object", "where is")
"""Words that pixelvla or the grounding stage put around instructions."""
KINDS = ("mean", "std", "min", "max", "q01", "q99")


def statistics(dataset: Path) -> dict[str, Any]:
    """The data set's own statistics of actions and states; the last action, the gripper, is left as it is."""
    stored = json.loads((dataset / "meta" / "stats.json").read_text(encoding="utf-8"))
    entries = {
        name: {kind: [float(value) for value in stored[key][kind]] for kind in KINDS}
        for name, key in (("action", "action"), ("proprio", "observation.state"))
    }
    dim = len(entries["action"]["mean"])
    return {KEY: {**entries, "action": {**entries["action"], "mask": [True] * (dim - 1) + [False]}}}


def write(dataset: Path, out: Path, seed: int = 0, sizes: Sizes = SIZES, image: int = IMAGE) -> tuple[int, int]:
    """Write the folder; return how many parameters and words it has."""
    tasks = pq.read_table(dataset / "meta" / "tasks.parquet").to_pandas()
    words = words_of([*(str(task) for task in tasks.get("task", tasks.index)), *EXTRA])
    found = statistics(dataset)
    widths = {name: len(entry["mean"]) for name, entry in found[KEY].items()}
    features = {
        f"observation.images.{CAMERA}": (3, image, image),
        "observation.state": (widths["proprio"],),
        "action": (widths["action"],),
    }
    config = {**CONFIG, "image_resolution": (image, image)}
    policy = write_random(out, words, sizes=sizes, config=config, features=features, statistics=found, seed=seed)
    return sum(parameter.numel() for parameter in policy.parameters()), len(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parameters, words = write(args.dataset, args.out, args.seed)
    print(f"{args.out}: {parameters / 1e6:.2f} M parameters, {words} words")


if __name__ == "__main__":
    main()
