"""Warm up openvla-mini's vision towers, and align them with words, on dense labels from the simulator.

    python scripts/mini/warm_up.py START PICTURES OUT [--steps N] [--seed N]

OpenVLA's towers come pretrained (DINOv2, SigLIP). There is nothing to download here, so the mini towers learn to see
instead of being taught by action tokens alone: what stands on each patch, where its centre is, how the gripper
stands, how far it has to go from there and what the expert would do. Only training scenes are shown.

Shapes: B batch, N patches (row-major), K things in a scene.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import torch
from loop import Losses, Schedule, arguments, fit, words
from pictures import (
    CABINET,
    COLOURS,
    DRAWER,
    GRID,
    GRIPPER,
    LIMITS,
    NOUNS,
    PATCHES,
    REACH,
    SIZE,
    STATE_SCALE,
    Pictures,
    load,
)
from pixelvla_openvla import OpenVLA
from tokenizers import Tokenizer
from torch import Tensor, nn

SEEN = 0.06
"""A thing stands on a patch if it covers this share of it."""


class Labels(nn.Module):
    """What the simulator knows of each patch, and the loss of the projected tokens against it.

    Colours and nouns are read with the language model's own embeddings of those words, as SigLIP aligns pictures with
    words: the language model can then match a word with a patch from its first layer on. The rest is read by a linear
    layer that is thrown away; it too reads behind the projector, which would drop what only the towers were asked for.

    Args:
        embed: Gives the language model's embedding of each id, float[W, D].
        word_id: Gives the id of a word.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], word_id: Callable[[str], int]) -> None:
        super().__init__()
        self.embed = embed
        self.words = torch.tensor([word_id(word) for word in (*COLOURS, *NOUNS)])
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.sizes = (3, 2, len(STATE_SCALE), 3, len(LIMITS))
        self.read = nn.Linear(len(embed(self.words)[0]), sum(self.sizes))

    def forward(self, tokens_BND: Tensor, data: Pictures, rows: np.ndarray) -> Losses:
        """Losses by name of the projected tokens of the frames ``rows`` of ``data``."""
        words_WD = self.embed(self.words)
        scores_BNW = self.scale.exp() * tokens_BND @ words_WD.T
        colour, noun = scores_BNW.split((len(COLOURS), len(NOUNS)), -1)
        kind, offset, state, away, action = self.read(tokens_BND).float().split(self.sizes, -1)
        share = data.share[rows].astype(np.float32)
        things = data.things[rows]
        is_object, is_drawer = things[..., 0] >= 0, things[..., 2] == DRAWER
        seen = share * (share > SEEN)
        main, has_object = _main(seen * is_object[:, None])
        located, has_thing = _main(seen * (is_object | is_drawer)[:, None])
        kinds = np.stack([(seen * (things[..., 2] == k)[:, None]).max(-1) > 0 for k in (DRAWER, CABINET, GRIPPER)], -1)
        gripper = torch.from_numpy(kinds[..., 2])
        labels = np.where(has_object[..., None], np.take_along_axis(things, main[..., None], 1)[..., :2], -100)
        centre = (np.take_along_axis(data.centre[rows], located[..., None], 1) - _patch_centres()) * (GRID / SIZE)
        cross, smooth = nn.functional.cross_entropy, nn.functional.smooth_l1_loss
        there, thing = torch.from_numpy(has_object), torch.from_numpy(has_thing)
        wanted = torch.from_numpy(data.state[rows])[:, None].expand_as(state)
        return {
            "colour": cross(colour.flatten(0, 1), torch.from_numpy(labels[..., 0]).flatten()),
            "noun": cross(noun.flatten(0, 1), torch.from_numpy(labels[..., 1]).flatten()),
            "kind": nn.functional.binary_cross_entropy_with_logits(kind, torch.from_numpy(kinds).float()),
            "object": nn.functional.softplus(-colour.logsumexp(-1)[there]).mean()
            + nn.functional.softplus(colour.logsumexp(-1)[~there]).mean(),
            "offset": smooth(offset[thing], torch.from_numpy(centre.astype(np.float32))[thing], beta=0.2),
            "state": smooth(state[gripper], wanted[gripper], beta=0.2),
            "away": smooth(away[thing], _of(data.away[rows] / REACH, located)[thing], beta=0.2),
            "action": smooth(action[thing], _of(data.actions[rows] / LIMITS, located)[thing], beta=0.2),
        }


def _main(seen_BNK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thing that covers most of each patch, and whether there is one."""
    return seen_BNK.argmax(-1), seen_BNK.max(-1) > 0


def _of(values_BKV: np.ndarray, things_BN: np.ndarray) -> Tensor:
    """What belongs to the thing on each patch, float32[B, N, V]."""
    return torch.from_numpy(np.take_along_axis(values_BKV, things_BN[..., None], 1).astype(np.float32))


def _patch_centres() -> np.ndarray:
    index = np.arange(PATCHES)
    return (np.stack([index % GRID, index // GRID], -1) + 0.5) * (SIZE / GRID)


def train(model: OpenVLA, tokenizer: Tokenizer, data: Pictures, plan: Schedule) -> None:
    """Train the towers; the last 2 % of the frames are held out and reported at the end."""
    torch.manual_seed(plan.seed)
    towers, labels = model.vision_backbone.train(), Labels(model.embed, tokenizer.token_to_id)
    embeddings = model.language_model.get_input_embeddings()
    last = len(data.images) - len(data.images) // 50

    def losses(rows: np.ndarray, _: np.random.Generator) -> tuple[Losses, Losses]:
        return labels(model.project(towers(pixels(model, data.images[rows]))[0]), data, rows), {}

    fit(losses, (towers, model.projector, embeddings, labels), last, plan, every=100)
    towers.eval()
    with torch.no_grad():
        rows = np.arange(last, len(data.images))[:512]
        print("held out: ", words(losses(rows, np.random.default_rng())[0]))


def pixels(model: OpenVLA, images_BHW3: np.ndarray) -> Tensor:
    """What the image processor gives for pictures that already have the towers' size."""
    pixels_B3HW = torch.from_numpy(np.ascontiguousarray(images_BHW3.transpose(0, 3, 1, 2))).float() / 255
    columns = [(torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)) for mean, std in model.images.norms]
    return torch.cat([(pixels_B3HW - mean) / std for mean, std in columns], 1)


def main() -> None:
    args = arguments(__doc__, steps=5000, batch_size=48, lr=2e-3)
    plan = Schedule(args.steps, args.batch_size, args.lr, 0.02, weight_decay=0.05, betas=(0.9, 0.999), seed=args.seed)
    model = OpenVLA.from_pretrained(args.start)
    tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    train(model, tokenizer, load(args.pictures), plan)
    model.save_pretrained(args.out, dtype=torch.float32)
    shutil.copy(args.start / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()
