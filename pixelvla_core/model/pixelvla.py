"""PixelVLA: a base model behind the seam, with pixel-aware and prompt-aware tokens inserted and an action head on top.

Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelvla_core.errors import ContractError, UserError, suggest
from pixelvla_core.model import freeze
from pixelvla_core.model.collate import collate_actions, collate_masks, collate_prompts
from pixelvla_core.model.lora import detached
from pixelvla_core.seam.backbone import BackboneAdapter
from pixelvla_core.seam.batch import Batch, Features, Sample
from pixelvla_core.seam.check import check_samples
from pixelvla_core.seam.prefix import Past, Prefix
from pixelvla_core.types import SPLICES

if TYPE_CHECKING:
    from pixelvla_core.contract import ActionContract


class PixelVLA(nn.Module):
    """A pixel-aware model around somebody's base model.

    Args:
        backbone: The adapter; its ``module`` becomes the submodule ``base``, with the names it has.
        head: Turns hidden states, or what else the backbone provides, into actions.
        pixel_encoder: Masks to tokens; None reads no masks.
        prompt_encoder: Prompts to tokens or to paint; None reads no prompts.
        splice: "after_image": image, pixel, prompt, text (Fig. 2 of the paper). "in_text": behind the instruction,
            which then ends in ", refer to" (appendix A.1).
        contract: Maps actions to [-1, 1] and back; without one, actions stay as they are and ``act`` is refused.
    """

    backbone: BackboneAdapter
    # Parts that plugins may bring; docs/plugins.md says what each must offer.
    head: Any
    pixel_encoder: Any
    prompt_encoder: Any

    def __init__(
        self,
        backbone: BackboneAdapter,
        head: nn.Module,
        *,
        pixel_encoder: nn.Module | None = None,
        prompt_encoder: nn.Module | None = None,
        splice: str = "after_image",
        contract: ActionContract | None = None,
    ) -> None:
        super().__init__()
        if splice not in SPLICES:
            raise UserError(f"splice is {splice!r}; expected one of {', '.join(SPLICES)}.{suggest(splice, SPLICES)}")
        # Not as a submodule: an adapter that is itself a module would give every weight of the base a second name.
        object.__setattr__(self, "backbone", backbone)
        self.base = backbone.module
        self.head = head
        self.pixel_encoder = pixel_encoder
        self.prompt_encoder = prompt_encoder
        self.splice = splice
        self.contract = contract

    @property
    def camera(self) -> str:
        """The camera that a data set or an environment with a single image fills: the backbone's first."""
        return self.backbone.spec.cameras[0]

    @property
    def device(self) -> torch.device:
        """Where the base's weights are."""
        return next(self.base.parameters()).device

    def train(self, mode: bool = True) -> PixelVLA:
        """Training mode for what trains; what is frozen in the base stays in eval mode, its dropout off."""
        super().train(mode)
        freeze.set_mode(self.base, mode)
        return self

    def train_only(self, groups: Iterable[str]) -> list[freeze.Row]:
        """Freeze all parameters but those of the groups, as a stage does; no groups freeze everything.

        Args:
            groups: "pixel", "prompt", "head", "lora", or groups of the backbone's spec.

        Returns:
            The table of groups.

        Raises:
            RecipeError: a group is unknown or has no parameters; nothing is changed then.
        """
        return freeze.apply(self, groups)

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Turn samples into a batch on the CPU: paint, tokenise, then let prompts, masks and actions follow.

        Raises:
            UserError: there are none, or one is not what ``Sample`` says.
        """
        check_samples(samples)
        samples = [self._prepared(sample) for sample in samples]
        batch = self._annotated(self.backbone.collate(samples, train=train), samples)
        batch = replace(batch, keys=tuple(sample.key for sample in samples))
        actions = [sample.actions for sample in samples if sample.actions is not None]
        if len(actions) < len(samples):
            return batch
        actions_BHA, valid_BH = collate_actions(actions, [sample.action_valid for sample in samples])
        if self.contract is not None:
            actions_BHA = self.contract.normalize(actions_BHA)
        return replace(batch, actions_BHA=actions_BHA, action_valid_BH=valid_BH)

    def features(self, batch: Batch) -> Features:
        """The base's one vision pass, with the levels that the pixel encoder reads."""
        return self.backbone.features(batch, () if self.pixel_encoder is None else self.pixel_encoder.levels)

    def prefix(self, batch: Batch, features: Features | None = None) -> Prefix:
        """What the transformer reads: the base's own tokens, and the spans "pixel" and "prompt" of each camera."""
        features = self.features(batch) if features is None else features
        prefix = self.backbone.prefix(batch, features)
        for camera in self.backbone.spec.cameras:
            after = f"image:{camera}" if self.splice == "after_image" else "instruction"
            # Each goes right behind the image or instruction, so what shall come first is inserted last.
            if self._prompt_tokens and camera in batch.prompts:
                prefix = prefix.insert(f"prompt:{camera}", *self.prompt_encoder(batch.prompts[camera]), after=after)
            if self.pixel_encoder is not None and camera in batch.masks:
                image = features.tokens[camera]
                pixel = self.pixel_encoder(features.levels[camera], batch.masks[camera], image)
                prefix = prefix.insert(f"pixel:{camera}", *pixel, after=after)
        return prefix

    @torch.no_grad()
    def prefill(self, batch: Batch, features: Features | None = None) -> Past:
        """What a frozen prefix leaves behind for the head; computed without autograd."""
        prefix = self.prefix(batch, features)
        keep = getattr(self.head, "prefill", None)
        return self.backbone.prefill(prefix) if keep is None else keep(self.backbone, prefix)

    def loss(self, batch: Batch, *, features: Features | None = None, past: Past | None = None) -> Tensor:
        """The head's training loss, a scalar.

        Args:
            features: A vision pass made before, if the vision tower is frozen.
            past: The outcome of ``prefill``, if everything but the head is frozen.
        """
        prefix = self.prefix(batch, features) if past is None else None
        return self.head.loss(self.backbone, prefix, batch, past=past)

    forward = loss  # so that DDP and FSDP wrap the loss

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Normalised actions, float[B, H, A]."""
        return self.head.act(self.backbone, self.prefix(batch), batch)

    def act(self, samples: Sequence[Sample]) -> np.ndarray:
        """Actions in physical units, float32[B, H, A]; put the model into eval mode first.

        Raises:
            ContractError: there is no action contract.
        """
        if self.contract is None:
            raise ContractError(
                "This model has no action contract, so its outputs cannot be turned into physical units. Load a "
                "trained checkpoint, which carries one, or give the contract of the data to `assemble`."
            )
        normalised_BHA = self.predict(self.collate(samples, train=False).to(self.device))
        return self.contract.unnormalize(normalised_BHA.float().cpu().numpy())

    def save_base(self, folder: Path) -> None:
        """Write the base in its own layout, without LoRA; to keep what LoRA learned, ``lora.merge`` it first.

        Raises:
            UserError: the adapter cannot write its base.
        """
        if not hasattr(self.backbone, "save_base"):
            raise UserError(
                f"{type(self.backbone).__name__} has no save_base, so this base cannot be written by itself."
            )
        with detached(self.base):
            self.backbone.save_base(folder)

    def _prepared(self, sample: Sample) -> Sample:
        self._check_cameras(sample)
        if self.prompt_encoder is not None and self.prompt_encoder.paints:
            sample = self.prompt_encoder.paint(sample)
        if self.splice == "in_text" and self._adds_tokens(sample):
            sample = replace(sample, instruction=f"{sample.instruction}, refer to")
        return sample

    def _check_cameras(self, sample: Sample) -> None:
        """Refuse prompts and masks that nothing would read."""
        given, read = {*sample.prompts, *sample.masks}, self.backbone.spec.cameras
        if unread := sorted(given - set(read)):
            raise UserError(
                f"A sample has prompts or masks in the camera {unread[0]!r}, but the backbone reads {', '.join(read)}."
                f"{suggest(unread[0], read)} Give them in a camera that it reads, or correct its option `cameras`."
            )

    @property
    def _prompt_tokens(self) -> bool:
        """Whether prompts become tokens rather than paint."""
        return self.prompt_encoder is not None and not self.prompt_encoder.paints

    def _adds_tokens(self, sample: Sample) -> bool:
        pixel = self.pixel_encoder is not None and any(len(masks) for masks in sample.masks.values())
        return pixel or (self._prompt_tokens and any(sample.prompts.values()))

    def _annotated(self, batch: Batch, samples: Sequence[Sample]) -> Batch:
        """The batch with ``prompts`` and ``masks``; a camera without any is left out."""
        grid, prompts, masks = self.backbone.spec.grid, {}, {}
        for camera, geometry in batch.geometry.items():
            prompts[camera] = collate_prompts([s.prompts.get(camera, ()) for s in samples], geometry, grid)
            masks[camera] = collate_masks([s.masks.get(camera) for s in samples], geometry, grid)
        return replace(
            batch,
            prompts={camera: found for camera, found in prompts.items() if found is not None},
            masks={camera: found for camera, found in masks.items() if found is not None},
        )
