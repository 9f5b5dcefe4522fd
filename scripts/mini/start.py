"""Write openvla-mini before any training: its architecture, its tokenizer and seeded random weights.

    python scripts/mini/start.py DATASET OUT

The folder has OpenVLA's official layout. Words are those of DATASET's instructions, of the prompt around them and of
the training objects, so a noun that is held out is an unknown word for the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq
import torch
from pixelvla_openvla import OpenVLA
from pixelvla_openvla.processing import prompt_text
from pixelvla_pi0.start import words_of
from pixelvla_tabletop.objects import COLOURS, TRAIN_SHAPES
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIAL = ("<unk>", "<s>", "</s>", "<empty>")
"""Ids 0 to 3; <empty> plays the part of Llama's lone space before the action ids."""

TEXT_IDS, ACTION_IDS, PADDING_IDS = 128, 64, 64
EXTRA = (", refer this object where is", *COLOURS, *(shape.noun for shape in TRAIN_SHAPES))
"""Words that pixelvla and the grounding stage put around instructions, and what is asked for."""

VOCABULARY = TEXT_IDS + ACTION_IDS
"""As in OpenVLA, the last ids below the padding are actions."""

TOWER = {"patch_size": 14, "embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 4}
ARCHITECTURE = {
    "model_type": "openvla",
    "towers": [
        TOWER | {"init_values": 0.1, "reg_tokens": 4, "no_embed_class": True},  # as DINOv2 with registers
        TOWER | {"class_token": False, "global_pool": "map"},  # as SigLIP
    ],
    "image_sizes": [112, 112],
    "image_resize_strategy": "resize-naive",
    "text_config": {
        "model_type": "llama",
        "vocab_size": VOCABULARY + PADDING_IDS,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": VOCABULARY,
    },
    "pad_to_multiple_of": PADDING_IDS,
    "pad_token_id": VOCABULARY,
    "empty_token_id": SPECIAL.index("<empty>"),
    "n_action_bins": ACTION_IDS,
}


def build_tokenizer(instructions: list[str]) -> Tokenizer:
    """A word-level tokenizer; words it does not know become <unk>."""
    names = [*SPECIAL, *words_of([*(prompt_text(instruction)[0] for instruction in instructions), *EXTRA])]
    if len(names) > TEXT_IDS:
        raise SystemExit(f"The instructions have {len(names)} different words; there is room for {TEXT_IDS}.")
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=SPECIAL[0]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tasks = pq.read_table(args.dataset / "meta" / "tasks.parquet").to_pandas()
    instructions = sorted(str(task) for task in tasks.get("task", tasks.index))
    model = OpenVLA.from_config(ARCHITECTURE, seed=args.seed)
    model.save_pretrained(args.out, dtype=torch.float32)
    tokenizer = build_tokenizer(instructions)
    tokenizer.save(str(args.out / "tokenizer.json"))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out}: {count / 1e6:.2f} M parameters, {tokenizer.get_vocab_size() - len(SPECIAL)} words")


if __name__ == "__main__":
    main()
