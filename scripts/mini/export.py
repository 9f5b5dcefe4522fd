"""Write the trained openvla-mini or pi0-mini as the folder that ships.

    python scripts/mini/export.py RUN OUT

RUN is what `pixelvla train mini/pretrain_openvla` or `mini/pretrain_pi0` made. OUT gets the base's own layout in
bfloat16, with the action statistics of the demonstrations under the key "tabletop", the tokenizer, and
provenance.json: how these very weights came to be, with the sha256 of model.safetensors. All of it is read from the
run and from the steps that make_mini.sh noted beside it; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from note import commit, noted, versions
from pixelvla_openvla import OpenVLA
from safetensors.torch import load_file, save_file

from pixelvla_core.checkpoint import Loaded, load
from pixelvla_core.contract import ActionContract
from pixelvla_core.errors import CheckpointError
from pixelvla_core.files import atomic_file, sha256, write_json
from pixelvla_core.recipe.construct import to_plain

KEY, WEIGHTS = "tabletop", "model.safetensors"


def export(run: Path, out: Path) -> None:
    """Write the base inside a run's newest checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged, has LoRA, or its actions are not scaled by quantiles.
    """
    loaded = load(run)
    contract = _contract(loaded)
    base = loaded.model.base
    if isinstance(base, OpenVLA):
        base.norm_stats = {KEY: {"action": {**contract.statistics.to_json(), "mask": list(contract.mask)}}}
        base.save_pretrained(out, dtype=torch.bfloat16)
    else:
        loaded.model.save_base(out)  # its statistics were written with its first weights, and go along
        _halve(out / WEIGHTS)
    (out / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone, and wheels keep that
    write_json(out / "provenance.json", provenance(loaded, contract, run, out))


def _halve(path: Path) -> None:
    """Store tensors in bfloat16."""
    state = {name: value.to(torch.bfloat16) for name, value in load_file(path).items()}
    with atomic_file(path) as partial:
        save_file(state, partial, metadata={"format": "pt"})


def provenance(loaded: Loaded, contract: ActionContract, run: Path, out: Path) -> dict[str, Any]:
    """Return how the weights in a folder came to be; no path of this machine is in it."""
    stages = {name: loaded.recipe.stages[name] for name in loaded.manifest.stages}
    return {
        "commit": commit(),
        "seed": next(iter(stages.values())).seed,
        "sha256": sha256(out / WEIGHTS),
        "versions": versions(),
        "metrics": _last_metrics(loaded.folder),
        "steps": loaded.manifest.step,
        "stages": to_plain(stages),
        "started_from": loaded.manifest.base.get("identity"),
        "steps_before": noted(run.parent),
        "data": {"fingerprint": contract.fingerprint, "fps": contract.fps, "camera": contract.camera},
    }


def _contract(loaded: Loaded) -> ActionContract:
    contract = loaded.model.contract
    if contract is None or not loaded.manifest.stages:
        raise CheckpointError(f"{loaded.folder} is no finished pretraining on demonstrations.")
    if loaded.manifest.lora:
        raise CheckpointError(
            f"{loaded.folder} has LoRA beside the base, which this folder would lack. Merge it first."
        )
    if contract.rule != "q99":
        raise CheckpointError(f"{loaded.folder} scales actions by {contract.rule!r}; the minis use q99.")
    return contract


def _last_metrics(checkpoint: Path) -> dict[str, float]:
    """The training's last report; times and memory are left out, because they are of the machine."""
    log = checkpoint.parents[1] / "metrics.jsonl"
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1]) if log.is_file() else {}
    return {key: last[key] for key in ("loss", "grad_norm") if key in last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    export(args.run, args.out)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.2f} MB, sha256 of the weights {sha256(args.out / WEIGHTS)}")


if __name__ == "__main__":
    main()
