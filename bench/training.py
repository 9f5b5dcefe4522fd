"""What a step of stage ``cat`` costs: ``python bench/training.py`` prints JSON.

The model is a random OpenVLA with a language model of 150 M parameters that reads 224 px images (256 patches). Each way
to make the same step runs in a process of its own, so that its peak memory is its own:

- ``autograd``: the head's queries at the end of the whole sequence, autograd through the frozen transformer.
- ``frozen``: the frozen prefix without autograd, then the queries behind its keys and values (what the trainer does).
- ``features``: as ``frozen``, with the vision pass read from the cache.
- ``hidden``: keys and values of the prefix read from the cache.

Targets: ``frozen`` at least 2 times, ``hidden`` at least 10 times the samples/s of ``autograd``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("autograd", "frozen", "features", "hidden")
BATCH, SAMPLES, SIDE = 2, 4, 224
INSTRUCTION = "put the red cube on the green plate"
TOWER = {"patch_size": 14, "embed_dim": 256, "depth": 8, "num_heads": 4, "mlp_ratio": 4, "class_token": False}
ARCHITECTURE = {
    "model_type": "openvla",
    "towers": [TOWER | {"init_values": 0.1}, TOWER],
    "image_sizes": [SIDE, SIDE],
    "text_config": {
        "vocab_size": 512,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 16,
        "num_attention_heads": 12,
        "pad_token_id": 448,
    },
    "pad_to_multiple_of": 64,
    "pad_token_id": 448,
    "empty_token_id": 3,
}


class Frames:
    """A dataset of random images and actions."""

    camera, fps, fingerprint = "front", 5.0, "bench"

    def __len__(self) -> int:
        return SAMPLES

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Any:
        from pixelvla_core.api import Sample

        drawn = np.random.default_rng(index)
        return Sample(
            images={"front": drawn.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)} if images else {},
            instruction=INSTRUCTION,
            actions=drawn.uniform(-1, 1, (horizon, 7)).astype(np.float32),
            action_valid=np.ones(horizon, bool),
        )

    def frame_key(self, index: int) -> str:
        return str(index)


def build_model() -> Any:
    """A PixelVLA around the random base."""
    from pixelvla_openvla import OpenVLA
    from pixelvla_openvla.adapter import OpenVLAAdapter
    from pixelvla_openvla.processing import PromptTokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers

    from pixelvla_core.model.action_head import L1ActionHead
    from pixelvla_core.model.config import ActionHeadConfig
    from pixelvla_core.model.pixelvla import PixelVLA

    base = OpenVLA.from_config(ARCHITECTURE, seed=0).eval()
    words = [
        "<unk>",
        "<s>",
        "</s>",
        " ",
        *sorted({*INSTRUCTION.split(), *["in", "out", "what", "action", "should", "robot", "take", "to", "?", ":"]}),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    base.tokenizer = PromptTokenizer(tokenizer, base.config)
    backbone = OpenVLAAdapter(base)
    return PixelVLA(backbone, L1ActionHead(ActionHeadConfig(), backbone.spec, horizon=8, dim=7))


def measure(way: str, steps: int) -> dict[str, float]:
    """Train a few steps one way, in this process."""
    from pixelvla_core.model import freeze
    from pixelvla_core.recipe import Part, Recipe, Stage
    from pixelvla_core.train.cache import open_cache
    from pixelvla_core.train.loader import Source
    from pixelvla_core.train.optim import make_optimizer
    from pixelvla_core.train.order import Order, Slot
    from pixelvla_core.train.stage import Objective

    kind = way if way in ("features", "hidden") else "none"
    stage = Stage(train=["head"], steps=steps, batch_size=BATCH, prompts=False, cache=kind)
    model, data = build_model(), Frames()
    freeze.apply(model, stage.train)
    model.train()
    recipe = Recipe(data=Part("bench"))
    start = time.perf_counter()
    cache = None if kind == "none" else open_cache(model, recipe, stage, data, lambda text: None, lambda: None)
    caching = time.perf_counter() - start
    objective = Objective(model, stage, autograd=way == "autograd")
    optimizer = make_optimizer(objective, stage)
    source = Source(data, model, stage, Order(len(data), 0, "cat"), cache=cache)
    resting = peak_mib()
    seconds = []
    for number in range(steps + 1):
        start = time.perf_counter()
        objective(*source.item(Slot(number)).on(model.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    step = float(np.median(seconds[1:]))
    return {
        "samples_per_s": BATCH / step,
        "step_s": step,
        "peak_mib": peak_mib(),
        "peak_before_steps_mib": resting,
        "caching_s": caching,
        "cache_mib_per_sample": 0.0 if cache is None else cache.store.layout.row_bytes / 2**20,
        "lm_parameters": sum(p.numel() for p in model.base.language_model.parameters()),
    }


def peak_mib() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="measure this one in this process")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.steps)))
        return 0
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            # Cached steps take milliseconds, so more of them are timed.
            steps = str(args.steps * (10 if way == "hidden" else 1))
            command = [sys.executable, str(Path(__file__).resolve()), "--way", way, "--steps", steps]
            done = subprocess.run(
                command, env={**os.environ, "PIXELVLA_CACHE": folder}, stdout=subprocess.PIPE, check=True
            )
            results[way] = json.loads(done.stdout)
    base = results["autograd"]["samples_per_s"]
    ratios = {way: results[way]["samples_per_s"] / base for way in WAYS}
    ok = ratios["frozen"] >= 2 and ratios["hidden"] >= 10
    print(json.dumps({"ways": results, "ratio_to_autograd": ratios, "ok": ok}, indent=2))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
