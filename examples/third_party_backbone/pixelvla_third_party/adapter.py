"""The adapter: everything pixelvla needs to know about the model in ``model.py``.

Shapes: B batch, S sequence, L text length, N patches, C vision width, D width, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelvla_core.api import (
    ActionSpec,
    Affine,
    BackboneSpec,
    Batch,
    Features,
    Past,
    Prefix,
    Sample,
    UserError,
    check_cameras,
    level_blocks,
)
from pixelvla_third_party.config import ThirdPartyConfig
from pixelvla_third_party.model import BOS, PAD, TinyVLA
from pixelvla_third_party.weights import load, save

BEFORE, AFTER = "Task: ", "\nAction:"


def build(
    config: ThirdPartyConfig, *, weights: str | None, dtype: str = "float32", quantize: str | None = None
) -> ThirdPartyBackbone:
    """What the plugin's Component names as ``target``.

    Args:
        weights: A folder written by ``save_base``; None gives random weights of the architecture in ``config``.
        dtype: "float32" or "bfloat16".
        quantize: Not offered by this backbone.
    """
    if quantize is not None:
        raise UserError(f"The backbone 'third_party' cannot be quantised ({quantize!r}). Leave `quantize` out.")
    if weights is not None:
        config, module = load(Path(weights))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            module = TinyVLA(config)
    return ThirdPartyBackbone(config, module.to(getattr(torch, dtype)).eval())


class ThirdPartyBackbone:
    """A BackboneAdapter (and a NativeBackbone) around TinyVLA.

    Attributes:
        spec: The facts that core needs.
        module: The base model, untouched.
    """

    def __init__(self, config: ThirdPartyConfig, module: TinyVLA) -> None:
        self.config, self.module = config, module
        side = config.image_size // config.patch
        self.spec = BackboneSpec(
            width=config.width,
            causal=config.causal,
            image_size=config.image_size,
            grid=(side, side),
            cameras=tuple(config.cameras),
            level_depth=config.vision_layers,
            level_width=config.vision_width,
            action=ActionSpec(horizon=config.horizon, dim=config.dim),
            provides=frozenset({"hidden", "native"}),
            groups={
                "vision": r"tower\..*",
                "projector": r"projector\..*",
                "llm": r"(embedding|blocks|norm)\..*",
                "action_io": r"action\..*",
            },
        )

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Letterbox every image, turn instructions into bytes, and record where the letterbox put the image."""
        for sample in samples:
            check_cameras(sample, self.spec.cameras)
        inputs, geometry = {}, {}
        for camera in self.spec.cameras:
            images = [sample.images[camera] for sample in samples]
            inputs[f"pixels.{camera}"] = torch.stack([_letterbox(image, self.spec.image_size) for image in images])
            geometry[camera] = tuple(Affine.letterbox(image.shape[1], image.shape[0]) for image in images)
        return Batch(inputs={**inputs, **_tokens([sample.instruction for sample in samples])}, geometry=geometry)

    def features(self, batch: Batch, levels: Sequence[float]) -> Features:
        """Run the tower once per camera; keep the asked blocks of that same run."""
        tokens, kept = {}, {}
        for camera in self.spec.cameras:
            pixels_BCHW = batch.inputs[f"pixels.{camera}"].to(self.module.projector.weight.dtype)
            blocks = self.module.tower(pixels_BCHW)
            tokens[camera] = self.module.projector(blocks[-1])
            kept[camera] = tuple(blocks[index] for index in level_blocks(levels, len(blocks)))
        return Features(tokens=tokens, levels=kept)

    def prefix(self, batch: Batch, features: Features) -> Prefix:
        """BOS, the images, then the text in three spans, of which core must find "instruction"."""
        ids_BL, part_BL = batch.inputs["ids"], batch.inputs["part"]
        bos_B1 = torch.full_like(ids_BL[:, :1], BOS)
        images = [
            Prefix.of(f"image:{camera}", features.tokens[camera], new_block=False) for camera in self.spec.cameras
        ]
        text_BLD = self.module.embedding(ids_BL)
        text = Prefix(text_BLD, ids_BL != PAD, torch.zeros_like(ids_BL, dtype=torch.bool), part_BL, TEXT_SPANS)
        # Only BOS starts a block: this base reads all it is given as one block (if it is not causal).
        return Prefix.cat([Prefix.of("bos", self.module.embedding(bos_B1)), *images, text])

    def hidden(self, prefix: Prefix, past: Past | None = None) -> Tensor:
        """One run of the transformer. Positions and masks are the prefix's own, so any inserted token is at home."""
        if past is None:
            positions, mask, layers = prefix.positions_BS(), prefix.mask_BSS(self.spec.causal), None
        else:
            positions, layers = prefix.positions_BS(past.length_B), past.layers
            mask = past.mask_BKP(prefix, self.spec.causal)
        return self.module.transform(prefix.tokens_BSD, positions, mask, layers)[0]

    def prefill(self, prefix: Prefix) -> Past:
        """The same run, for its keys and values."""
        mask = prefix.mask_BSS(self.spec.causal)
        _, layers = self.module.transform(prefix.tokens_BSD, prefix.positions_BS(), mask)
        return Past(layers, prefix.valid_BS)

    def native_loss(self, prefix: Prefix, batch: Batch) -> Tensor:
        """The base's own objective: mean squared error of its own action layer."""
        assert batch.actions_BHA is not None, "a training batch has actions"
        assert batch.action_valid_BH is not None, "and says which are valid"
        H = self.spec.action.horizon
        valid_BH = batch.action_valid_BH[:, :H]
        error_BHA = self.native_actions(prefix, batch) - batch.actions_BHA[:, :H]
        error_BHA = torch.where(valid_BH[..., None], error_BHA, 0.0)
        return error_BHA.square().mean(-1).sum() / valid_BH.sum().clamp(min=1)

    def native_actions(self, prefix: Prefix, batch: Batch) -> Tensor:
        """Read the last valid token, wherever padding and inserted tokens have moved it."""
        hidden_BSD = self.hidden(prefix)
        columns_S = torch.arange(hidden_BSD.shape[1], device=hidden_BSD.device)
        last_B = torch.where(prefix.valid_BS, columns_S, -1).amax(1)
        last_BD = hidden_BSD[torch.arange(len(last_B), device=last_B.device), last_B]
        return self.module.action(last_BD).unflatten(-1, (self.spec.action.horizon, self.spec.action.dim)).float()

    def save_base(self, folder: Path) -> None:
        """Write the base in its own layout."""
        save(self.config, self.module, Path(folder))


TEXT_SPANS = ("before", "instruction", "after")


def _tokens(instructions: Sequence[str]) -> dict[str, Tensor]:
    """Ids int[B, L], padded on the right, and for each the index of its span in TEXT_SPANS."""
    rows = [[part.encode() for part in (BEFORE, text, AFTER)] for text in instructions]
    longest = max(sum(map(len, parts)) for parts in rows)
    ids_BL, part_BL = torch.full((len(rows), longest), PAD), torch.full((len(rows), longest), 2)
    for row, parts in enumerate(rows):
        ids = b"".join(parts)
        ids_BL[row, : len(ids)] = torch.tensor(list(ids))
        part_BL[row, : len(ids)] = torch.tensor([index for index, part in enumerate(parts) for _ in part])
    return {"ids": ids_BL, "part": part_BL}


def _letterbox(image: np.ndarray, size: int) -> Tensor:
    """Pad to a square with black, as ``Affine.letterbox`` says, resize, and scale to [-1, 1]: float[3, size, size]."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    resized = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
