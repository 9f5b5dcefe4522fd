"""Teach pi0-mini to see, and to find what an instruction means, before it learns to act.

    python scripts/mini/see_pi0.py START PICTURES OUT [--steps N] [--seed N]

pi0 starts from PaliGemma, which was trained to find things by their names. Here the vision tower learns from the
simulator's labels as openvla-mini's does (warm_up.py), and at the same time the language model learns to tell which
patches an instruction means, where that thing is from the gripper and what the expert would do first. The embeddings
rest: trained along, words and patches fall apart.

Shapes: B batch, N patches, S prefix, D model width.
"""

from __future__ import annotations

import shutil

import numpy as np
import torch
from ground import told
from loop import Losses, Schedule, arguments, fit, words
from pictures import LIMITS, PATCHES, REACH, Pictures, load
from pixelvla_pi0.adapter import Pi0Adapter, build
from pixelvla_pi0.config import Pi0Options
from torch import Tensor, nn
from warm_up import SEEN, Labels

from pixelvla_core.seam.batch import Batch, Features

CAMERA = "front"


class Referring(nn.Module):
    """Which patches an instruction means, and what the expert would do first, read from two layers of the model.

    From an early layer, so that the action expert can read it in all layers that follow, and from the last one.
    """

    def __init__(self, adapter: Pi0Adapter, data: Pictures) -> None:
        super().__init__()
        self.adapter, self.data = adapter, data
        layers = adapter.vlm.paligemma.model.language_model.layers
        self.layers = [layers[len(layers) // 2 - 1], layers[-1]]
        width = adapter.spec.width
        self.meant = nn.ModuleList([nn.Linear(width, 1) for _ in self.layers])
        self.known = nn.ModuleList([nn.Linear(width, 3 + len(LIMITS)) for _ in self.layers])
        object.__setattr__(self, "adapter", adapter)

    def losses(self, features: Features, rows: np.ndarray, rng: np.random.Generator) -> tuple[Losses, Losses]:
        """What to make small, and how often the likeliest patch is one that is meant."""
        things_B = np.array([self._any_thing(row, rng) for row in rows])
        texts = [told(self.data, row, thing, rng) for row, thing in zip(rows, things_B, strict=True)]
        batch = Batch(inputs={**self.adapter.text(texts)}, geometry={})
        hidden = self._hidden(batch, features)
        seen_BN = torch.from_numpy(self.data.share[rows, :, things_B] > SEEN)
        known = np.concatenate([self.data.away[rows, things_B] / REACH, self.data.actions[rows, things_B] / LIMITS], -1)
        wanted = torch.from_numpy(known.astype(np.float32))
        last_B = PATCHES + batch.inputs["token_mask"].sum(1) - 1
        meant = [read(found[:, :PATCHES]).squeeze(-1) for read, found in zip(self.meant, hidden, strict=True)]
        knows = [read(found[range(len(rows)), last_B]) for read, found in zip(self.known, hidden, strict=True)]
        binary, smooth = nn.functional.binary_cross_entropy_with_logits, nn.functional.smooth_l1_loss
        visible = seen_BN.any(1)
        hit = seen_BN[visible, meant[-1].argmax(1)[visible]]
        return {
            "meant": sum(4 * binary(score, seen_BN.float()) for score in meant),
            "know": sum(smooth(guess, wanted, beta=0.2) for guess in knows),
        }, {"found": hit.float().mean()}

    def _any_thing(self, row: int, rng: np.random.Generator) -> int:
        return int(rng.choice(np.flatnonzero(~np.isnan(self.data.away[row, :, 0]))))

    def _hidden(self, batch: Batch, features: Features) -> list[Tensor]:
        found: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out))
            for layer in self.layers
        ]
        try:
            self.adapter.hidden(self.adapter.prefix(batch, features))
        finally:
            for hook in hooks:
                hook.remove()
        return found


def train(adapter: Pi0Adapter, data: Pictures, plan: Schedule) -> None:
    """Train everything but the expert and the embeddings; the last 2 % of the pictures are held out and reported."""
    torch.manual_seed(plan.seed)
    policy, vlm = adapter.module.train(), adapter.vlm
    embed = vlm.paligemma.model.language_model.get_input_embeddings().requires_grad_(False)
    labels = Labels(lambda ids: vlm.embed_language_tokens(ids), adapter.text.tokenizer.convert_tokens_to_ids)
    referring = Referring(adapter, data)

    def losses(rows: np.ndarray, rng: np.random.Generator) -> tuple[Losses, Losses]:
        images = torch.from_numpy(np.ascontiguousarray(data.images[rows].transpose(0, 3, 1, 2)))
        tokens_BND = vlm.embed_image(images.float() / 127.5 - 1)
        small, shown = referring.losses(Features(tokens={CAMERA: tokens_BND}, levels={CAMERA: ()}), rows, rng)
        return labels(tokens_BND, data, rows) | small, shown

    last = len(data.images) - len(data.images) // 50
    fit(losses, (vlm.paligemma.model, labels, referring), last, plan, every=100)
    embed.requires_grad_(True)
    policy.eval()
    with torch.no_grad():
        rows = np.arange(last, len(data.images))[:256]
        small, shown = losses(rows, np.random.default_rng(plan.seed))
        print("held out: ", words(small | shown))


def main() -> None:
    args = arguments(__doc__, steps=4000, batch_size=32, lr=2e-3)
    plan = Schedule(args.steps, args.batch_size, args.lr, 0.02, weight_decay=0.02, betas=(0.9, 0.98), seed=args.seed)
    adapter = build(Pi0Options(), weights=str(args.start))
    train(adapter, load(args.pictures), plan)
    adapter.save_base(args.out)
    for beside in set(item.name for item in args.start.iterdir()) - set(item.name for item in args.out.iterdir()):
        shutil.copy(args.start / beside, args.out)


if __name__ == "__main__":
    main()
