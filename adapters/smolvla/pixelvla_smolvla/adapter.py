"""The adapter: LeRobot's SmolVLA behind the seam. LeRobot's own code computes everything; here it is fed and spliced.

Shapes: B batch, S sequence, L text length, N image tokens, C vision width, D width, H horizon, A action dim, X state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
    level_blocks,
    local_folder,
)
from pixelvla_core.contract import Statistics
from pixelvla_smolvla.config import SmolVLAOptions
from pixelvla_smolvla.processing import TEXT_SPANS, geometry, pixels, words
from pixelvla_smolvla.splice import reader, spliced, text_and_state
from pixelvla_smolvla.state import ACTION, StateRule, action_statistics, of_data, read_normalizer, stated
from pixelvla_smolvla.surface import check_surface
from pixelvla_smolvla.untrained import untrained_policy
from pixelvla_smolvla.weights import WANTED, load_policy, save_policy, set_dtype

VLM = r"model\.vlm_with_expert\.vlm"
GROUPS = {
    "vision": rf"{VLM}\.model\.vision_model\..*",
    "projector": rf"{VLM}\.model\.connector\..*",
    "llm": rf"{VLM}\.model\.text_model\..*",
    "expert": r"model\.vlm_with_expert\.lm_expert\..*",
    "action_io": rf"model\.(state_proj|action_\w+)\..*|{VLM}\.lm_head\..*",
}


def build(
    config: SmolVLAOptions, *, weights: str | None, dtype: str = "float32", quantize: str | None = None
) -> SmolVLAAdapter:
    """What the plugin's Component names as ``target``.

    Args:
        weights: A folder in LeRobot's layout or an id on the Hugging Face hub; None builds ``config.size`` with random
            weights.
        dtype: Of the vision-language model and the expert; the layers for states and actions stay in float32.
        quantize: Not offered by this backbone.
    """
    if quantize is not None:
        raise UserError(f"The backbone smolvla cannot be quantised ({quantize!r}). Leave `quantize` out.")
    kind = getattr(torch, dtype)
    if weights is None:
        return SmolVLAAdapter(set_dtype(untrained_policy(config.size, config.cameras, **config.policy), kind), config)
    folder = local_folder(weights, config.revision, wanted=WANTED)
    policy, normalizer = load_policy(folder, config, kind), read_normalizer(folder)
    return SmolVLAAdapter(policy, config, normalizer=normalizer, folder=folder)


class SmolVLAAdapter:
    """The seam's view of a SmolVLA.

    Args:
        policy: LeRobot's `SmolVLAPolicy`; not compiled yet.
        normalizer: LeRobot's step with the statistics of states and actions.
        folder: Where the weights were read from.

    Raises:
        UserError: the policy lacks something that the adapter relies on, or an option does not fit it.
    """

    def __init__(
        self, policy: Any, config: SmolVLAOptions, *, normalizer: Any = None, folder: Path | None = None
    ) -> None:
        check_surface(policy)
        self.config, self.module = config, policy
        self.weights_folder, self.statistics = folder, action_statistics(normalizer)
        if config.state_mean is not None:
            normalizer = stated(config.state_mean, config.state_std or ())
        self.state = StateRule(normalizer, width=policy.config.max_state_dim, used=config.state)
        self.keys = _camera_keys(policy.config, config.cameras)
        missing = len(policy.config.image_features) - len(self.keys)
        self.empty = min(missing, policy.config.empty_cameras)
        self.spec = _spec(policy, tuple(self.keys), self.state)

    @property
    def lacks_states(self) -> bool:
        """Whether it reads states and has no statistics of them."""
        return self.state.lacking

    def take_states(self, statistics: Statistics) -> None:
        """Normalise states by these, unless the weights or the options brought their own."""
        if self.lacks_states:
            self.state = StateRule(of_data(statistics), width=self.state.width)
            self.spec = replace(self.spec, state_dim=self.state.dim)

    @property
    def _inner(self) -> Any:
        """LeRobot's SmolVLMWithExpertModel."""
        return self.module.model.vlm_with_expert

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Letterbox as LeRobot does, tokenise, normalise the state, and record where the images went."""
        own, size = self.module.config, self.spec.image_size
        for sample in samples:
            check_cameras(sample, self.spec.cameras)
        places = {c: tuple(geometry(sample.images[c], size) for sample in samples) for c in self.spec.cameras}
        rows = [pixels(self.module, sample, self.keys) for sample in samples]
        inputs = {f"image:{camera}": torch.stack([row[camera] for row in rows]) for camera in self.spec.cameras}
        instructions = [sample.instruction for sample in samples]
        inputs |= words(self._inner.processor.tokenizer, instructions, own.tokenizer_max_length, own.pad_language_to)
        inputs["state"] = torch.stack([self.state(sample) for sample in samples])
        return Batch(inputs=inputs, geometry=places)

    def features(self, batch: Batch, levels: Sequence[float]) -> Features:
        """Run the tower once per camera. The connector makes one token of several patches, and so do the levels."""
        blocks = self._inner.get_vlm_model().vision_model.encoder.layers
        wanted = level_blocks(levels, len(blocks))
        tokens, kept = {}, {}
        for camera in self.spec.cameras:
            with _outputs([blocks[index] for index in wanted]) as found:
                tokens_BND = self._inner.embed_image(batch.inputs[f"image:{camera}"])
            scale = torch.tensor(self.spec.width**0.5, dtype=tokens_BND.dtype, device=tokens_BND.device)
            tokens[camera] = tokens_BND * scale
            kept[camera] = tuple(_pooled(level, self.spec.grid) for level in found)
        return Features(tokens=tokens, levels=kept)

    def prefix(self, batch: Batch, features: Features) -> Prefix:
        """The images, between special tokens if the checkpoint wants them, the text, the state, and padding."""
        parts: list[Prefix] = []
        for camera in self.spec.cameras:
            parts += self._picture(camera, features.tokens[camera])
        # LeRobot reads a missing camera as a black image that nobody sees; here no vision pass is spent on it.
        unseen_BND = torch.zeros_like(features.tokens[self.spec.cameras[0]])
        for number in range(self.empty):
            parts += self._picture(f"empty {number}", unseen_BND, seen=False)
        parts.append(self._text(batch))
        short = self.module.model.prefix_length - sum(part.tokens_BSD.shape[1] for part in parts)
        if short > 0:
            blank_BSD = parts[-1].tokens_BSD.new_zeros(len(unseen_BND), short, self.spec.width)
            unseen_BS = torch.zeros(blank_BSD.shape[:2], dtype=torch.bool, device=blank_BSD.device)
            parts.append(Prefix.of("padding", blank_BSD, unseen_BS, new_block=False))
        return Prefix.cat(parts)

    def _picture(self, camera: str, tokens_BND: Tensor, *, seen: bool = True) -> list[Prefix]:
        """One image's tokens, and the special tokens around them."""
        valid_BN = torch.full(tokens_BND.shape[:2], seen, device=tokens_BND.device)
        image = Prefix.of(f"image:{camera}", tokens_BND, valid_BN, new_block=False)
        model = self.module.model
        if not model.add_image_special_tokens:
            return [image]
        start, end = (
            self._inner.embed_language_tokens(ids.to(tokens_BND.device)).expand(len(tokens_BND), -1, -1)
            for ids in (model.global_image_start_token, model.image_end_token)
        )
        return [
            Prefix.of(f"start:{camera}", start, new_block=False),
            image,
            Prefix.of(f"end:{camera}", end, new_block=False),
        ]

    def _text(self, batch: Batch) -> Prefix:
        """The text in three spans, and the state, which starts a block."""
        given = batch.inputs
        found = text_and_state(self.module.model, given["tokens"], given["token_mask"], given["state"])
        state_B1 = torch.full_like(given["token_span"][:, :1], TEXT_SPANS.index("state"))
        return Prefix(*found, torch.cat([given["token_span"], state_B1], 1), TEXT_SPANS)

    def hidden(self, prefix: Prefix, past: Past | None = None) -> Tensor:
        """One run of the language model's layers, by LeRobot's own loop over them."""
        if past is None:
            return self._read(prefix, prefix.positions_BS(), prefix.mask_BSS(self.spec.causal))[0]
        mask_BKP = past.mask_BKP(prefix, self.spec.causal)
        return self._read(prefix, prefix.positions_BS(past.length_B), mask_BKP, _cache(past))[0]

    def prefill(self, prefix: Prefix) -> Past:
        """The same run, for its keys and values."""
        _, cache = self._read(prefix, prefix.positions_BS(), prefix.mask_BSS(self.spec.causal), _cache())
        return Past(tuple((layer.keys, layer.values) for layer in cache.layers), prefix.valid_BS)

    def _read(self, prefix: Prefix, positions: Tensor, mask: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        (hidden_BSD, _), cache = reader(self._inner).forward(
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            inputs_embeds=[prefix.tokens_BSD, None],
            use_cache=cache is not None,
        )
        return hidden_BSD, cache

    def native_loss(self, prefix: Prefix, batch: Batch) -> Tensor:
        """LeRobot's training loss: noise, then time, then the mean over valid steps and the data's dimensions."""
        actions_BHA, valid_BH = self._chunk(batch)
        B, H, dim = actions_BHA.shape
        model = self.module.model
        noise_BHA = model.sample_noise((B, H, self.spec.action.widest), actions_BHA.device)
        time_B = model.sample_time(B, actions_BHA.device)
        losses_BHA = self.flow_loss(prefix, batch, noise_BHA, time_B)[..., :dim]
        if valid_BH is None:
            return losses_BHA.mean()
        return (losses_BHA * valid_BH[..., None]).sum() / (valid_BH.sum() * dim).clamp_min(1)

    def native_actions(self, prefix: Prefix, batch: Batch) -> Tensor:
        """A chunk sampled by LeRobot, from noise of its own or of the samples' keys, float32[B, H, max_dim]."""
        shape = self.spec.action.horizon, self.spec.action.widest
        fixed = self.config.fixed_noise and bool(batch.keys)
        device = prefix.tokens_BSD.device
        drawn = (
            _fixed(batch.keys, shape)
            if fixed
            else self.module.model.sample_noise((len(prefix.valid_BS), *shape), device)
        )
        return self.flow_sample(prefix, batch, drawn.to(device), self.module.config.num_steps)

    def flow_loss(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, time_B: Tensor) -> Tensor:
        """The squared error of the velocity by LeRobot's ``VLAFlowMatching.forward``, as wide as the noise."""
        actions_BHA = self._wide(self._chunk(batch)[0])
        model = spliced(self.module.model, prefix)
        losses_BHA = model.forward(None, None, None, None, None, actions_BHA, self._wide(noise_BHA), time_B)
        return losses_BHA[..., : noise_BHA.shape[-1]]

    def flow_sample(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, steps: int) -> Tensor:
        """LeRobot's ``sample_actions``: the prefix once, then Euler steps, as wide as the noise."""
        noise = self._wide(noise_BHA)
        model = spliced(self.module.model, prefix, steps)
        # Of the state, which the prefix holds, only the batch size and the device are read.
        actions_BHA = model.sample_actions(None, None, None, None, noise, noise=noise)
        return actions_BHA[..., : noise_BHA.shape[-1]]

    def _wide(self, values_BHA: Tensor) -> Tensor:
        return self.module.prepare_action({ACTION: values_BHA})

    def _chunk(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The batch's actions float[B, H, A] and their validity, H being SmolVLA's own.

        Raises:
            UserError: there are none, or they do not fit.
        """
        H, widest = self.spec.action.horizon, self.spec.action.widest
        if batch.actions_BHA is None:
            raise UserError("The base's own loss needs actions, and this batch has none. Use training samples.")
        steps, dim = batch.actions_BHA.shape[1:]
        if steps < H or dim > widest:
            raise UserError(
                f"The batch has chunks of {steps} actions with {dim} values each; this SmolVLA learns chunks of {H} "
                f"with {widest} values at most. Set action.horizon={H}, or choose data or a base that fits."
            )
        valid_BH = batch.action_valid_BH
        return batch.actions_BHA[:, :H], None if valid_BH is None else valid_BH[:, :H]

    def save_base(self, folder: Path) -> None:
        """Write the base in LeRobot's layout, and the SmolVLM's files beside it."""
        save_policy(self.module, self.weights_folder, Path(folder))


def _camera_keys(own: Any, named: Sequence[str]) -> dict[str, str]:
    """Camera -> its key in LeRobot's batches, in the policy's order.

    Raises:
        UserError: the policy has no cameras, or fewer than are named.
    """
    keys = [key for key in own.image_features if ".empty_camera_" not in key]
    if not keys or len(named) > len(keys):
        raise UserError(
            f"This SmolVLA reads {len(keys)} cameras ({', '.join(keys) or 'none'}); backbone.options.cameras names "
            f"{list(named)}. Name as many at most."
        )
    short = [key.removeprefix("observation.").removeprefix("images.") for key in keys]
    return dict(zip(named or short, keys, strict=False))


def _spec(policy: Any, cameras: tuple[str, ...], state: StateRule) -> BackboneSpec:
    own, inner = policy.config, policy.model.vlm_with_expert
    vision, size = inner.config.vision_config, own.resize_imgs_with_padding[0]
    per_token = vision.patch_size * inner.get_vlm_model().connector.scale_factor
    if size % per_token:
        raise UserError(
            f"This SmolVLA pads images to {size} pixels, but a token takes {per_token}; choose a multiple of that in "
            "resize_imgs_with_padding of its config.json."
        )
    return BackboneSpec(
        width=inner.config.text_config.hidden_size,
        causal=False,
        image_size=size,
        grid=(size // per_token, size // per_token),
        cameras=cameras,
        level_depth=vision.num_hidden_layers,
        level_width=vision.hidden_size,
        action=ActionSpec(horizon=own.chunk_size, dim=own.action_feature.shape[0], max_dim=own.max_action_dim),
        state_dim=(state.dim or own.robot_state_feature.shape[0]) if state.used else None,
        provides=frozenset({"hidden", "native", "flow"}),
        groups=GROUPS,
    )


@contextmanager
def _outputs(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What these modules return in the runs made meanwhile, in the order in which they were asked for."""
    found: list[Any] = [None] * len(blocks)
    handles = [
        block.register_forward_hook(lambda _module, _inputs, output, index=index: found.__setitem__(index, output))
        for index, block in enumerate(blocks)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _pooled(level_BPC: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of the patches that the connector makes one token of, float[B, N, C]."""
    B, patches, C = level_BPC.shape
    rows, columns = grid
    side = round((patches / (rows * columns)) ** 0.5)
    return level_BPC.view(B, rows, side, columns, side, C).mean((2, 4)).flatten(1, 2)


def _cache(past: Past | None = None) -> Any:
    """The keys and values of a past where LeRobot looks for them; empty without one."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for index, (keys, values) in enumerate(() if past is None else past.layers):
        cache.update(keys, values, index)
    return cache


def _fixed(keys: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Noise that depends on each row's key alone, float[B, H, A]."""
    seeds = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") % 2**63 for key in keys]
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
