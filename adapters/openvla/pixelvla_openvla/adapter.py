"""OpenVLA behind pixelvla's seam.

B batch, S sequence, D model width, L text length, N patches, A action dim, H horizon (always 1 here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelvla_core.api import (
    ActionSpec,
    BackboneSpec,
    Batch,
    Features,
    Past,
    Prefix,
    Sample,
    UserError,
    check_cameras,
)

from .actions import action_stats
from .config import OpenVLAConfig
from .openvla import IGNORE, OpenVLA, pad
from .prismatic import last_valid

GROUPS = {
    "vision": r"vision_backbone\..*",
    "projector": r"projector\..*",
    "llm": r"language_model\.model\.(layers|norm)\..*",
    "action_io": r"language_model\.(model\.embed_tokens|lm_head)\..*",
}
OFFICIAL_ACTION_DIM = 7


def build(
    config: OpenVLAConfig, *, weights: str | None, dtype: str = "float32", quantize: str | None = None
) -> OpenVLAAdapter:
    """Load a base model and put it behind the seam.

    Args:
        weights: Folder of a checkpoint, or a hub id.
        dtype: Of the base weights: float32, bfloat16 or float16.
        quantize: "8bit" or "4bit" for the language model's linear layers (bitsandbytes).

    Raises:
        UserError: no checkpoint is named.
        CheckpointError: it is missing, damaged or does not fit.
    """
    if weights is None:
        raise UserError("The backbone openvla needs weights: a checkpoint folder, a hub id, or a name a plugin offers.")
    model = OpenVLA.from_pretrained(weights, dtype=dtype, quantize=quantize, revision=config.revision)
    return OpenVLAAdapter(model, cameras=config.cameras, unnorm_key=config.unnorm_key)


class OpenVLAAdapter:
    """The seam's view of an OpenVLA.

    Args:
        model: The base model; it must have a tokenizer before anything is collated.
        cameras: In the order in which their patches stand; OpenVLA itself was trained with one.
        unnorm_key: The data set whose statistics say how many dimensions an action has; needed only if they differ.
    """

    def __init__(self, model: OpenVLA, *, cameras: Sequence[str] = ("front",), unnorm_key: str | None = None) -> None:
        self.module = model
        self.spec = BackboneSpec(
            width=model.language_model.config.hidden_size,
            causal=True,
            image_size=model.config.image_size,
            grid=model.vision_backbone.grid,
            cameras=tuple(cameras),
            level_depth=len(model.vision_backbone.towers[-1].blocks) - 1,
            level_width=model.vision_backbone.towers[-1].embed_dim,
            action=ActionSpec(horizon=1, dim=_action_dim(model, unnorm_key)),
            provides=frozenset({"hidden", "native"}),
            groups=GROUPS,
        )

    @property
    def statistics(self) -> Mapping[str, Any]:
        """The base's own action statistics by data set, from which an action contract can be made."""
        return self.module.norm_stats

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Tokenise the instructions and resize the images; nothing depends on `train`."""
        for sample in samples:
            check_cameras(sample, self.spec.cameras)
        prompts, inside = zip(*(self.module.tokenizer(sample.instruction) for sample in samples), strict=True)
        inputs = {**self.module.pad_prompts(prompts), "instruction_mask": pad(inside, False)}
        geometry = {}
        for camera in self.spec.cameras:
            images = [sample.images[camera] for sample in samples]
            inputs[f"pixel_values:{camera}"] = torch.stack([self.module.images(image) for image in images])
            geometry[camera] = tuple(self.module.images.geometry(image.shape[1], image.shape[0]) for image in images)
        return Batch(inputs=inputs, geometry=geometry)

    def features(self, batch: Batch, levels: Sequence[float]) -> Features:
        """One vision pass over all cameras; levels are those of the last tower (SigLIP)."""
        pixels = torch.cat([batch.inputs[f"pixel_values:{camera}"] for camera in self.spec.cameras])
        tokens, found = self.module.image_tokens(pixels, levels)
        by_camera = [value.chunk(len(self.spec.cameras)) for value in (tokens, *found)]
        return Features(
            tokens={camera: by_camera[0][i] for i, camera in enumerate(self.spec.cameras)},
            levels={camera: tuple(level[i] for level in by_camera[1:]) for i, camera in enumerate(self.spec.cameras)},
        )

    def prefix(self, batch: Batch, features: Features) -> Prefix:
        """BOS, the patches of each camera, the prompt; its last valid token is the empty id before the answer."""
        images = {camera: features.tokens[camera] for camera in self.spec.cameras}
        inputs = batch.inputs
        valid_BL, instruction_BL = inputs["attention_mask"].bool(), inputs["instruction_mask"].bool()
        return self.module.prefix(inputs["input_ids"], valid_BL, images, instruction_BL)

    def hidden(self, prefix: Prefix, past: Past | None = None) -> Tensor:
        """Hidden states after the final norm, float[B, S, D]."""
        return self.module.run(prefix, past)[0]

    def prefill(self, prefix: Prefix) -> Past:
        """Keys and values of every layer, for tokens that follow."""
        past = self.module.run(prefix, keep=True)[1]
        assert past is not None
        return past

    def native_loss(self, prefix: Prefix, batch: Batch) -> Tensor:
        """Cross entropy of the action ids and `</s>` for each row's first action, as in OpenVLA's training."""
        if batch.actions_BHA is None:
            raise UserError("The base's own loss needs actions, and this batch has none. Use training samples.")
        ids_BA = self.module.answers(batch.actions_BHA[:, 0].cpu().numpy()).to(prefix.tokens_BSD.device)
        whole = prefix.insert("answer", self.module.embed(ids_BA[:, :-1]), after="")
        hidden_BSD = self.hidden(whole)
        before = prefix.tokens_BSD.shape[1]
        first_BD = last_valid(prefix, hidden_BSD[:, :before])
        hidden_BAD = torch.cat([first_BD[:, None], hidden_BSD[:, before:]], dim=1)
        if batch.action_valid_BH is not None:
            ids_BA = ids_BA.masked_fill(~batch.action_valid_BH[:, :1], IGNORE)
        return self.module.answer_loss(hidden_BAD, ids_BA)

    @property
    def weights_folder(self) -> Path | None:
        """Where the base's weights were read from."""
        return self.module.folder

    def save_base(self, folder: Path) -> None:
        """Write the base as an ordinary OpenVLA checkpoint, in the type it has."""
        self.module.save_pretrained(folder, dtype=self.module.projector.fc1.weight.dtype)

    @torch.no_grad()
    def native_actions(self, prefix: Prefix, batch: Batch) -> Tensor:
        """The greedy action ids as normalised values, float32[B, 1, A]."""
        ids_BA = self.module.greedy(prefix, self.spec.action.dim)
        normalised_BA = torch.from_numpy(self.module.actions.decode(ids_BA.cpu().numpy()))
        return normalised_BA.float().to(ids_BA.device)[:, None]


def _action_dim(model: OpenVLA, unnorm_key: str | None) -> int:
    dims = {len(entry["action"]["q01"]) for entry in model.norm_stats.values()}
    if unnorm_key is None and len(dims) <= 1:
        return dims.pop() if dims else OFFICIAL_ACTION_DIM
    return len(action_stats(model.norm_stats, unnorm_key)["q01"])
