"""LeRobot's pi0 behind pixelvla's seam.

Tokens enter at the result of `embed_prefix`. The action expert, the key-value cache, the denoising loop and the loss
are LeRobot's own and run unchanged.

Shapes: B batch, S sequence, D width of the language model, N patches, L text length, H horizon, A action dim.
"""

from __future__ import annotations

import hashlib
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
    local_folder,
)
from pixelvla_core.contract import Statistics

from . import weights as files
from .config import Pi0Options
from .processing import TEXT_SPANS, TextTokenizer, geometry, load_tokenizer, pixels
from .sampling import faster
from .sizes import Sizes
from .splice import captured, embedded, spliced
from .state import ACTION, STATE, StateRule, action_statistics, data_step, read_statistics, state_step
from .surface import check_surface, check_version

_VLM = r"model\.paligemma_with_expert\.paligemma\.model\."
GROUPS = {
    "vision": rf"{_VLM}vision_tower\..*",
    "projector": rf"{_VLM}multi_modal_projector\..*",
    "llm": rf"{_VLM}language_model\..*",
    "expert": r"model\.paligemma_with_expert\.gemma_expert\.model\..*",
    "action_io": r"model\.(state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out)\..*",
}


def build(
    config: Pi0Options, *, weights: str | None, dtype: str = "float32", quantize: str | None = None
) -> Pi0Adapter:
    """Load a pi0 and put it behind the seam.

    Args:
        weights: A folder in LeRobot's layout, or a hub id such as "lerobot/pi0_base".
        dtype: float32 or bfloat16; with bfloat16 LeRobot keeps the vision tower, the projector and norms in float32.
        quantize: Not offered.

    Raises:
        UserError: no checkpoint is named, or an option does not fit.
        CheckpointError: the checkpoint is missing, damaged, or another model's.
    """
    if weights is None:
        raise UserError("The backbone pi0 needs weights: a folder, a hub id, or a name a plugin offers.")
    if quantize is not None:
        raise UserError(f"The backbone pi0 cannot be quantised ({quantize!r}). Leave `quantize` out.")
    check_version()
    folder = local_folder(weights, config.revision, wanted=files.WANTED)
    sizes = Sizes.read(folder)
    policy = files.build(files.read_config(folder, config.policy, dtype), sizes)
    check_surface(policy, config.sampler)
    files.load(folder, policy)
    statistics = read_statistics(folder)
    step = state_step(folder, statistics, key=config.key, mean=config.state_mean, std=config.state_std)
    return Pi0Adapter(
        policy.eval(),
        tokenizer=load_tokenizer(folder, config.tokenizer),
        cameras=config.cameras,
        state=StateRule(step, width=policy.config.max_state_dim, used=config.state),
        fixed_noise=config.fixed_noise,
        sampler=config.sampler,
        statistics=statistics,
        folder=folder,
        sizes=sizes,
    )


class Pi0Adapter:
    """The seam's view of a pi0.

    Args:
        policy: LeRobot's `PI0Policy`, or whatever has its surface; not compiled yet.
        tokenizer: A fast tokenizer of transformers.
        cameras: In the order in which their tokens stand.
        state: How states are normalised and padded; by default they are padded only.
        fixed_noise: Take the noise of a chunk from the sample's key in place of torch's generator.
        sampler: How chunks are sampled: "lerobot", by LeRobot's code alone, or "fast", the same without idle work.
        statistics: Data set -> {"action": ..., "proprio": ...}.
        folder: Where the weights were read from.
        sizes: Of a small pi0, so that it can be saved.

    Raises:
        UserError: the policy lacks something that the adapter relies on, or is compiled.
    """

    def __init__(
        self,
        policy: Any,
        *,
        tokenizer: Any,
        cameras: Sequence[str] = ("front",),
        state: StateRule | None = None,
        fixed_noise: bool = False,
        sampler: str = "lerobot",
        statistics: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        check_surface(policy, sampler)
        self.module = policy
        self.core = policy.model
        self.vlm = self.core.paligemma_with_expert
        self.statistics = action_statistics(statistics or {})
        self.weights_folder, self.sizes = folder, sizes
        self.fixed_noise, self.sampler = fixed_noise, sampler
        self.state = state or StateRule(None, width=policy.config.max_state_dim)
        language = self.vlm.paligemma.model.language_model
        # As LeRobot does before it samples: its additive mask is made for this attention.
        language.config._attn_implementation = "eager"
        self.text = TextTokenizer(
            tokenizer, length=policy.config.tokenizer_max_length, vocabulary=language.config.vocab_size
        )
        self.spec = self._described(tuple(cameras))

    @property
    def lacks_states(self) -> bool:
        """Whether it reads states and has no statistics of them."""
        return self.state.used and self.state.step is None

    def take_states(self, statistics: Statistics) -> None:
        """Normalise states by these, in pi0's way, unless the weights or the options brought their own."""
        if self.lacks_states:
            self.state = StateRule(data_step(statistics), width=self.state.width)
            self.spec = self._described(self.spec.cameras)

    def _described(self, cameras: tuple[str, ...]) -> BackboneSpec:
        config, tower = self.module.config, self.vlm.paligemma.model.vision_tower
        side = config.image_resolution[0] // tower.config.patch_size
        return BackboneSpec(
            width=self.vlm.paligemma.model.language_model.config.hidden_size,
            causal=False,
            image_size=config.image_resolution[0],
            grid=(side, side),
            cameras=cameras,
            level_depth=len(self.blocks),
            level_width=tower.config.hidden_size,
            action=ActionSpec(horizon=config.chunk_size, dim=self._action_dim(), max_dim=config.max_action_dim),
            state_dim=self.state.dim if self.state.used else None,
            provides=frozenset({"hidden", "native", "flow"}),
            groups=GROUPS,
        )

    def _action_dim(self) -> int:
        """What the weights' statistics or LeRobot's features say; pi0's own width if they say nothing clear."""
        dims = {len(entry["action"]["mean"]) for entry in self.statistics.values()}
        feature = self.module.config.action_feature
        declared = feature.shape[0] if feature is not None else self.module.config.max_action_dim
        return dims.pop() if len(dims) == 1 else declared

    @property
    def blocks(self) -> Any:
        """The blocks of the vision tower."""
        return self.vlm.paligemma.model.vision_tower.vision_model.encoder.layers

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Letterbox the images, tokenise the instructions, normalise the states; nothing depends on `train`.

        Raises:
            UserError: a sample lacks a camera or its state, or an image or state cannot be read.
        """
        size, inputs, places = self.spec.image_size, {}, {}
        for sample in samples:
            check_cameras(sample, self.spec.cameras)
        for camera in self.spec.cameras:
            images = [sample.images[camera] for sample in samples]
            inputs[f"image:{camera}"] = torch.stack([pixels(image, size) for image in images])
            places[camera] = tuple(geometry(image, size) for image in images)
        inputs |= self.text([sample.instruction for sample in samples])
        inputs["state"] = torch.stack([self.state(sample.state, sample.key) for sample in samples])
        return Batch(inputs=inputs, geometry=places)

    def features(self, batch: Batch, levels: Sequence[float]) -> Features:
        """LeRobot's `embed_image`, once per camera; block outputs are captured on the way."""
        tokens, kept = {}, {}
        for camera in self.spec.cameras:
            with captured(self.blocks, levels) as found:
                tokens[camera] = self.vlm.embed_image(batch.inputs[f"image:{camera}"])
            kept[camera] = tuple(found)
        return Features(tokens=tokens, levels=kept)

    def prefix(self, batch: Batch, features: Features) -> Prefix:
        """What LeRobot's `embed_prefix` makes of these image tokens and the text: one block that sees itself."""
        images = [features.tokens[camera] for camera in self.spec.cameras]
        text = batch.inputs
        tokens_BSD, valid_BS, block_BS = embedded(self.core, images, text["tokens"], text["token_mask"])
        shown = [text["token_span"].new_full(image.shape[:2], i) for i, image in enumerate(images)]
        span_BS = torch.cat([*shown, text["token_span"] + len(images)], 1)
        names = (*(f"image:{camera}" for camera in self.spec.cameras), *TEXT_SPANS)
        # LeRobot starts no block here, which comes to the same as one that begins in the first column.
        block_BS = block_BS.bool().clone()
        block_BS[:, 0] = True
        return Prefix(tokens_BSD, valid_BS, block_BS, span_BS, names)

    def hidden(self, prefix: Prefix, past: Past | None = None) -> Tensor:
        """Hidden states of the language model after its final norm, float[B, S, D]."""
        if past is None:
            return self._run(prefix.tokens_BSD, prefix.positions_BS(), prefix.mask_BSS(causal=False))[0]
        mask_BSP, positions_BS = past.mask_BKP(prefix, causal=False), prefix.positions_BS(past.length_B)
        return self._run(prefix.tokens_BSD, positions_BS, mask_BSP, past)[0]

    def prefill(self, prefix: Prefix) -> Past:
        """Keys and values of every layer, for tokens that follow."""
        mask_BSS = prefix.mask_BSS(causal=False)
        cache = self._run(prefix.tokens_BSD, prefix.positions_BS(), mask_BSS, keep=True)[1]
        return Past(tuple((keys, values) for keys, values, *_ in cache), prefix.valid_BS)

    def _run(
        self, tokens_BSD: Tensor, positions_BS: Tensor, mask_BST: Tensor, past: Past | None = None, keep: bool = False
    ) -> tuple[Tensor, Any]:
        """The language model alone, as LeRobot runs it over a prefix."""
        from lerobot.policies.pi0 import modeling_pi0
        from transformers import DynamicCache

        outputs, cache = self.vlm.forward(
            attention_mask=modeling_pi0.prepare_attention_masks_4d(mask_BST),
            position_ids=positions_BS,
            past_key_values=None if past is None else DynamicCache(past.layers),
            inputs_embeds=[tokens_BSD, None],
            use_cache=keep,
        )
        return outputs[0], cache

    def native_loss(self, prefix: Prefix, batch: Batch) -> Tensor:
        """LeRobot's flow-matching loss, noise and time drawn as LeRobot draws them; a scalar.

        Over the data's own action dimensions and the steps that are valid (LeRobot counts those behind an episode's
        end as well). Where all are valid it is LeRobot's loss to the last bit.
        """
        actions_BHA, valid_BH = self._chunk(batch)
        padded_BHA = self.module.prepare_action({ACTION: actions_BHA})
        noise_BHA = self.core.sample_noise(padded_BHA.shape, padded_BHA.device)
        time_B = self.core.sample_time(len(padded_BHA), padded_BHA.device)
        error_BHA = self._errors(prefix, batch, padded_BHA, noise_BHA, time_B)[:, :, : actions_BHA.shape[2]]
        if valid_BH is None or bool(valid_BH.all()):
            return error_BHA.mean()
        error_BHA = torch.where(valid_BH[..., None], error_BHA, 0.0)
        return error_BHA.mean(-1).sum() / valid_BH.sum().clamp(min=1)

    def native_actions(self, prefix: Prefix, batch: Batch) -> Tensor:
        """A chunk sampled by LeRobot, from noise of its own or of the samples' keys, float32[B, H, max_dim]."""
        noise_BHA = self._fixed(batch) if self.fixed_noise and batch.keys else None
        return self._sampled(prefix, batch, noise_BHA, None)

    def _fixed(self, batch: Batch) -> Tensor:
        shape = self.spec.action.horizon, self.spec.action.widest
        seeds = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") for key in batch.keys]
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**63)) for seed in seeds]
        return torch.stack(rows).to(batch.inputs["state"].device)

    def flow_loss(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, time_B: Tensor) -> Tensor:
        """LeRobot's squared error of the velocity for given noise and time, of the noise's shape."""
        actions_BHA = self.module.prepare_action({ACTION: self._chunk(batch)[0]})
        padded_BHA = self.module.prepare_action({ACTION: noise_BHA})
        return self._errors(prefix, batch, actions_BHA, padded_BHA, time_B)[:, :, : noise_BHA.shape[2]]

    def flow_sample(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, steps: int) -> Tensor:
        """LeRobot's denoising from given noise, of its shape; the prefix is encoded once."""
        padded_BHA = self.module.prepare_action({ACTION: noise_BHA})
        return self._sampled(prefix, batch, padded_BHA, steps)[:, :, : noise_BHA.shape[2]]

    def _errors(self, prefix: Prefix, batch: Batch, actions_BHA: Tensor, noise_BHA: Tensor, time_B: Tensor) -> Tensor:
        with spliced(self.core, prefix):
            return self.core.forward(None, None, None, None, self._state(batch), actions_BHA, noise_BHA, time_B)

    def _sampled(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor | None, steps: int | None) -> Tensor:
        way = faster if self.sampler == "fast" else spliced
        with way(self.core, prefix):
            return self.core.sample_actions(
                None, None, None, None, self._state(batch), noise=noise_BHA, num_steps=steps
            ).float()

    def _state(self, batch: Batch) -> Tensor:
        return self.module.prepare_state({STATE: batch.inputs["state"]})

    def _chunk(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The batch's actions float[B, H, A] and their validity, H being pi0's own."""
        H, widest = self.spec.action.horizon, self.module.config.max_action_dim
        if batch.actions_BHA is None:
            raise UserError("The base's own loss needs actions, and this batch has none. Use training samples.")
        found = tuple(batch.actions_BHA.shape[1:])
        if found[0] < H or found[1] > widest:
            raise UserError(
                f"The batch has chunks of {found[0]} actions with {found[1]} values each; this pi0 learns chunks of "
                f"{H} with {widest} values at most. Set action.horizon={H}, or choose data or a base that fits."
            )
        valid_BH = batch.action_valid_BH
        return batch.actions_BHA[:, :H], None if valid_BH is None else valid_BH[:, :H]

    def save_base(self, folder: Path) -> None:
        """Write the base in LeRobot's layout, in the type it has, with its tokenizer and statistics."""
        files.save(
            self.module, Path(folder), sizes=self.sizes, tokenizer=self.text.tokenizer, beside=self.weights_folder
        )
