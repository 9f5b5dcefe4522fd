"""The Prismatic network: vision towers, projector, Llama. Parameter names are those of the official checkpoint.

B batch, S fused sequence, T keys (cached + new), Q new tokens, D model width, N patches, C feature width, L text length.
The fused sequence is `[BOS] [N patches] [rest of the text]`. Positions are cumsum(valid) - 1 and attention is causal,
so neither padding nor an invalid token changes what the valid ones compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .vision import VisionBackbone


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
    """Vision features to the language model's width: three linear layers for fused towers, two for a single one."""

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

    def __init__(self, config: ModelConfig, *, attention: str = "sdpa") -> None:
        super().__init__()
        from transformers import LlamaForCausalLM

        self.config = config
        self.vision_backbone = VisionBackbone(config.towers)
        llama = llama_config(config, attention)
        self.projector = Projector(self.vision_backbone.width, llama.hidden_size, fused=len(config.towers) == 2)
        self.language_model = LlamaForCausalLM(llama)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the embeddings float[B, L, D] of text ids."""
        return self.language_model.get_input_embeddings()(ids_BL)

    def image_tokens(self, pixels_BCHW: Tensor, levels: Sequence[float] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the projected patches float[B, N, D] and the feature levels, from one vision pass."""
        features_BNC, found = self.vision_backbone(pixels_BCHW.to(self.vision_dtype), levels)
        return self.projector(features_BNC), found

    @property
    def vision_dtype(self) -> torch.dtype:
        """The floating-point type in which the towers compute."""
        return self.vision_backbone.featurizer.patch_embed.proj.weight.dtype

    def fuse(self, ids_BL: Tensor, valid_BL: Tensor, patches_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Put the patches behind the first text token.

        Args:
            ids_BL: Text ids, BOS first; padding only on the right.
            valid_BL: bool, False on padding.
            patches_BND: Projected patches.

        Returns:
            float[B, S, D] and bool[B, S], S = N + L.
        """
        text_BLD = self.embed(ids_BL)
        tokens_BSD = torch.cat([text_BLD[:, :1], patches_BND.to(text_BLD.dtype), text_BLD[:, 1:]], dim=1)
        seen_BN = valid_BL.new_ones(patches_BND.shape[:2])
        return tokens_BSD, torch.cat([valid_BL[:, :1], seen_BN, valid_BL[:, 1:]], dim=1)

    def run(self, tokens_BQD: Tensor, valid_BT: Tensor, past: Any = None, mask_BQT: Tensor | None = None) -> Tensor:
        """Run the Llama over new tokens, after what `past` holds; `past` grows.

        Args:
            tokens_BQD: Embeddings of the new tokens.
            valid_BT: bool over cached and new tokens together (T = cached + Q).
            past: A transformers cache, or None for a single pass.
            mask_BQT: bool, who may look at whom; causal over the valid tokens if left out.

        Returns:
            float[B, Q, D] after the final norm.
        """
        new = tokens_BQD.shape[1]
        positions_BQ = positions(valid_BT)[:, -new:]
        mask = attention_mask(valid_BT, new, mask_BQT, tokens_BQD.dtype)
        out = self.language_model.model(
            inputs_embeds=tokens_BQD,
            attention_mask=mask,
            position_ids=positions_BQ,
            past_key_values=past,
            use_cache=past is not None,
        )
        return out.last_hidden_state

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, pixel_values: Tensor) -> PrismaticOutput:
        """Run everything once.

        Args:
            input_ids: int[B, L], BOS first in the valid part; padded on the right or on the left.
            attention_mask: [B, L], nonzero on valid ids; None if all are.
            pixel_values: float[B, 3 * towers, H, W].
        """
        ids_BL, valid_BL = pad_right(input_ids, attention_mask)
        tokens_BSD, valid_BS = self.fuse(ids_BL, valid_BL, self.image_tokens(pixel_values)[0])
        hidden_BSD = self.run(tokens_BSD, valid_BS)
        return PrismaticOutput(hidden_BSD, self.language_model.lm_head(hidden_BSD), valid_BS)


def llama_config(config: ModelConfig, attention: str) -> Any:
    """Return transformers' LlamaConfig for the language model."""
    from transformers import LlamaConfig

    return LlamaConfig(**config.text, attn_implementation=attention)


def positions(valid_BT: Tensor) -> Tensor:
    """Return cumsum(valid) - 1 as int[B, T]: a token that is not valid shifts nobody."""
    return (valid_BT.long().cumsum(dim=1) - 1).clamp_min(0)


def attention_mask(valid_BT: Tensor, new: int, mask_BQT: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the additive mask float[B, 1, Q, T] for the last `new` tokens; causal unless `mask_BQT` says otherwise."""
    if mask_BQT is None:
        total = valid_BT.shape[1]
        causal_QT = torch.ones(new, total, dtype=torch.bool, device=valid_BT.device).tril(total - new)
        mask_BQT = causal_QT & valid_BT[:, None].bool()
    zero = torch.zeros((), dtype=dtype, device=valid_BT.device)
    return torch.where(mask_BQT, zero, torch.finfo(dtype).min)[:, None]


def pad_right(ids_BL: Tensor, mask_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """Move left padding to the right, where the patches' place behind BOS does not depend on it.

    Returns:
        The ids and bool[B, L] validity, each row's valid ids first and in their order.
    """
    if mask_BL is None:
        return ids_BL, torch.ones_like(ids_BL, dtype=torch.bool)
    valid_BL = mask_BL.bool()
    order_BL = torch.argsort(~valid_BL, dim=1, stable=True)
    return ids_BL.gather(1, order_BL), valid_BL.gather(1, order_BL)
