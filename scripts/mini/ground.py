"""Teach openvla-mini to answer where things are, before it learns to act.

    python scripts/mini/ground.py WARM PICTURES OUT [--steps N] [--seed N]

OpenVLA starts from a vision-language model that was trained to answer questions about pictures. Here the questions are
"In: Where is the red cube? Out:", one for each thing in the picture, one behind the other in one sequence, and the
answer is three of the action ids: where the thing is from the gripper, in x, y and z.

Shapes: B batch, L text length, N patches, D model width.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from pictures import COLOURS, NOUNS, Pictures, load
from pixelvla_openvla import OpenVLA
from pixelvla_openvla.openvla import IGNORE, pad
from tokenizers import Tokenizer
from torch import Tensor, nn
from warm_up import pixels, words

REACH = 0.12
"""Metres that the outermost ids stand for."""

COLOUR_NAMES = list(COLOURS)


class Questions:
    """Questions and answers about pictures as ids."""

    def __init__(self, model: OpenVLA, tokenizer: Tokenizer, data: Pictures) -> None:
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self.answers = model.actions.encode(np.nan_to_num(data.away / REACH))

    def ask(self, row: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Ids and labels of every question about one picture, in random order; BOS first."""
        ids, labels = [int(self.model.config.text["bos_token_id"])], [IGNORE]
        things = np.flatnonzero(~np.isnan(self.data.away[row, :, 0]))
        for thing in rng.permutation(things):
            question = self.tokenizer.encode(f"In: Where is the {self._name(row, thing)}?\nOut:").ids
            answer = self.answers[row, thing].tolist()
            ids += [*question, self.model.config.empty_token_id, *answer]
            labels += [IGNORE] * (len(question) + 1) + answer
        return ids, labels

    def _name(self, row: int, thing: int) -> str:
        colour, noun, _ = self.data.things[row, thing]
        return "drawer" if colour < 0 else f"{COLOUR_NAMES[colour]} {NOUNS[noun]}"

    def loss(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of the answers, and figures for the log (the error in metres)."""
        asked = [self.ask(row, rng) for row in rows]
        ids = pad([ids for ids, _ in asked], self.model.config.pad_token_id)
        labels_BL = pad([labels for _, labels in asked], IGNORE)[:, 1:]
        model = self.model
        patches_BND = model.image_tokens(pixels(model, self.data.images[rows]))[0]
        text_BLD = model.embed(ids)
        # Padding stands on the right and attention is causal, so no mask is needed.
        tokens = torch.cat([text_BLD[:, :1], patches_BND, text_BLD[:, 1:]], 1)
        hidden = model.language_model.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
        before_BLD = hidden[:, -labels_BL.shape[1] - 1 : -1]
        wanted = labels_BL != IGNORE
        logits = model.language_model.lm_head(before_BLD[wanted])
        answers = labels_BL[wanted]
        loss = nn.functional.cross_entropy(logits, answers)
        found, true = (model.actions.decode(i.numpy()) for i in (logits.argmax(-1), answers))
        return loss, {"answer": loss, "error_mm": torch.tensor(1000 * REACH * np.abs(found - true).mean())}


def train(model: OpenVLA, questions: Questions, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """Train everything; the last 2 % of the pictures are held out and reported at the end."""
    torch.manual_seed(seed)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 100) * max(0.1, 0.5 * (1 + np.cos(np.pi * s / steps)))
    )
    rng, held_out, start = np.random.default_rng(seed), len(questions.data.images) // 50, time.time()
    last = len(questions.data.images) - held_out
    for step in range(1, steps + 1):
        loss, figures = questions.loss(rng.integers(0, last, batch_size), rng)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps:
            print(
                f"step {step}/{steps}  {step * batch_size / (time.time() - start):.0f} pictures/s  {words(figures)}",
                flush=True,
            )
    with torch.no_grad():
        print("held out: ", words(questions.loss(np.arange(last, last + min(held_out, 256)), rng)[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warm", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = OpenVLA.from_pretrained(args.warm)
    questions = Questions(model, Tokenizer.from_file(str(args.warm / "tokenizer.json")), load(args.pictures))
    train(model, questions, args.steps, args.batch_size, args.lr, args.seed)
    model.save_pretrained(args.out, dtype=torch.float32)
    shutil.copy(args.warm / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()
