"""The Prismatic network: vision towers, projector, Llama. Parameter names are those of the official checkpoint.

B batch, S sequence, Q new tokens, D model width, N patches, C feature width, L text length, V vocabulary.
The sequence is `[BOS] [patches of each camera] [rest of the text]`, kept as a `Prefix`, which also says who takes which
position and who may look at whom: neither padding nor a token that is not valid changes what the others compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from pixelvla_core.api import Past, Prefix, UserError

from .config import ModelConfig
from .vision import VisionBackbone

CAMERA = "front"


@dataclass
class PrismaticOutput:
    """What a pass over a fused sequence gives.

    Attributes:
        last_hidden_state: float[B, S, D] after the final norm.
        logits: float[B, S, V] over the whole (padded) vocabulary.
        valid: bool[B, S], False on padding.
    """

    last_hidden_state: Tensor
    logits: Tensor
    valid: Tensor


class Projector(nn.Module):
    """Vision features to the language model's width: three linear layers for two towers, two for a single one."""

    def __init__(self, width: int, hidden: int, *, fused: bool) -> None:
        super().__init__()
        inner = 4 * width if fused else hidden
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, hidden)
        self.fc3 = nn.Linear(hidden, hidden) if fused else None
        self.act = nn.GELU()  # exact (erf), as in training

    def forward(self, features_BNC: Tensor) -> Tensor:
        """Return float[B, N, D]."""
        out = self.fc2(self.act(self.fc1(features_BNC)))
        return out if self.fc3 is None else self.fc3(self.act(out))


class Prismatic(nn.Module):
    """Vision towers, projector and Llama, and the order in which their tokens are joined."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config.towers)
        llama = LlamaConfig(**{**config.text, "attn_implementation": "sdpa"})
        self.projector = Projector(self.vision_backbone.width, llama.hidden_size, fused=len(config.towers) == 2)
        self.language_model = LlamaForCausalLM(llama)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the embeddings float[B, L, D] of text ids."""
        return self.language_model.get_input_embeddings()(ids_BL)

    def image_tokens(self, pixels_BCHW: Tensor, levels: Sequence[float] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the projected patches float[B, N, D] and the feature levels, from one vision pass."""
        features_BNC, found = self.vision_backbone(pixels_BCHW, levels)
        return self.projector(features_BNC), found

    def prefix(
        self, ids_BL: Tensor, valid_BL: Tensor, images: Mapping[str, Tensor], instruction_BL: Tensor | None = None
    ) -> Prefix:
        """Put each camera's patches behind the first text token.

        Args:
            ids_BL: Text ids, BOS first, padded on the right.
            valid_BL: bool, False on padding.
            images: Camera -> projected patches float[B, N, D].
            instruction_BL: bool, the ids that carry the instruction; they become a span of their own.

        Returns:
            Spans "bos", "image:<camera>", "text" and, if asked for, "instruction".
        """
        text_BLD = self.embed(ids_BL)
        bos = Prefix.of("bos", text_BLD[:, :1], valid_BL[:, :1])
        patches = [Prefix.of(f"image:{camera}", tokens.to(text_BLD.dtype)) for camera, tokens in images.items()]
        joined = Prefix.cat([bos, *patches, Prefix.of("text", text_BLD[:, 1:], valid_BL[:, 1:])])
        if instruction_BL is None:
            return joined
        before_BS = instruction_BL.new_zeros(len(ids_BL), joined.span_BS.shape[1] - ids_BL.shape[1])
        here_BS = torch.cat([before_BS, instruction_BL], dim=1)  # BOS is never part of the instruction
        return replace(
            joined,
            span_BS=joined.span_BS.masked_fill(here_BS, len(joined.names)),
            names=(*joined.names, "instruction"),
        )

    def run(self, prefix: Prefix, past: Past | None = None, *, keep: bool = False) -> tuple[Tensor, Past | None]:
        """Run the Llama over a prefix, or over the tokens that follow a past.

        Args:
            prefix: What is new.
            past: What an earlier run kept; it is not changed.
            keep: Also return the past that tokens behind `prefix` need.

        Returns:
            float[B, Q, D] after the final norm, and the past (None unless `keep`).
        """
        cache = self._cache(past) if keep or past is not None else None
        mask_BQS = prefix.mask_BSS(causal=True) if past is None else past.mask_BKP(prefix, causal=True)
        out = self.language_model.model(
            inputs_embeds=prefix.tokens_BSD,
            attention_mask=mask_BQS[:, None],
            position_ids=prefix.positions_BS(None if past is None else past.length_B),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        if cache is None or not keep:
            return out.last_hidden_state, None
        seen = [prefix.valid_BS] if past is None else [past.valid_BS, prefix.valid_BS]
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        return out.last_hidden_state, Past(layers, torch.cat(seen, dim=1))

    def _cache(self, past: Past | None) -> Any:
        llama = self.language_model
        if llama.training and llama.is_gradient_checkpointing:
            raise UserError(
                "Gradient checkpointing is on, under which transformers drops every cached key and value. Turn it off "
                "for runs that keep or follow a past, or put the model in eval mode."
            )
        return DynamicCache(past.layers if past is not None else None)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, pixel_values: Tensor) -> PrismaticOutput:
        """Run everything once.

        Args:
            input_ids: int[B, L], BOS first in the valid part; padded on the right or on the left.
            attention_mask: [B, L], nonzero on valid ids; None if all are.
            pixel_values: float[B, 3 * towers, H, W].
        """
        prefix = self.prefix(*pad_right(input_ids, attention_mask), {CAMERA: self.image_tokens(pixel_values)[0]})
        hidden_BSD, _ = self.run(prefix)
        return PrismaticOutput(hidden_BSD, self.language_model.lm_head(hidden_BSD), prefix.valid_BS)

    def greedy(self, prefix: Prefix, steps: int) -> Tensor:
        """Return the `steps` most likely ids int[B, steps] behind a prefix, each one fed back; `</s>` is no stop."""
        hidden_BSD, past = self.run(prefix, keep=True)
        last_BD = last_valid(prefix, hidden_BSD)
        found: list[Tensor] = []
        while len(found) < steps:
            found.append(self.language_model.lm_head(last_BD).argmax(dim=-1))
            if len(found) < steps:
                hidden_BSD, past = self.run(Prefix.of("answer", self.embed(found[-1][:, None])), past, keep=True)
                last_BD = hidden_BSD[:, -1]
        return torch.stack(found, dim=1)


def last_valid(prefix: Prefix, hidden_BSD: Tensor) -> Tensor:
    """Return the hidden state float[B, D] at each row's last valid token."""
    columns_S = torch.arange(prefix.valid_BS.shape[1], device=prefix.valid_BS.device)
    last_B = torch.where(prefix.valid_BS, columns_S, -1).amax(dim=1)
    return hidden_BSD[torch.arange(len(last_B), device=last_B.device), last_B]


def pad_right(ids_BL: Tensor, mask_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """Move left padding to the right, where the patches' place behind BOS does not depend on it.

    Returns:
        The ids and bool[B, L] validity, each row's valid ids first and in their order.

    Raises:
        UserError: the mask has another shape than the ids, or a row without any valid id.
    """
    if mask_BL is None:
        return ids_BL, torch.ones_like(ids_BL, dtype=torch.bool)
    if mask_BL.shape != ids_BL.shape:
        raise UserError(
            f"attention_mask is {tuple(mask_BL.shape)}, input_ids {tuple(ids_BL.shape)}; they must have one shape. "
            "Take both from the same call of the tokenizer."
        )
    valid_BL = mask_BL.bool()
    if not valid_BL.any(dim=1).all():
        raise UserError("A row of attention_mask has no valid id; every prompt begins with the id of BOS.")
    order_BL = torch.argsort(~valid_BL, dim=1, stable=True)
    return ids_BL.gather(1, order_BL), valid_BL.gather(1, order_BL)
