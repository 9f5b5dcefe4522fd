"""The same chunk as LeRobot samples, without the work that nobody reads.

LeRobot's `sample_actions` stays the one that runs: the noise, Euler's steps and real-time chunking are its own, and so
are all modules and weights. While `faster` is open, two of its parts have others in their place, in which

- columns of the prefix that are padding in every sample are not computed (a position counts valid tokens only);
- the last layer of the language model makes its keys and values, and no MLP behind them;
- attention is torch's fused one and reads the keys and values that heads share where they lie, with no copy per head;
- a denoising step copies the prefix's keys and values once, beside its own, and not three times;
- mask and positions of the denoised tokens are made once for a chunk, not once for a step.

Shapes: B batch, S prefix length, D width of the language model, T tokens of a step (the state and H actions), G heads,
K heads that have keys and values of their own, W width of a head, A action dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelvla_core.api import Prefix

from .splice import replaced, spliced


@contextmanager
def faster(core: Any, prefix: Prefix) -> Iterator[None]:
    """Let LeRobot's `sample_actions` read this prefix, as `spliced` does, and take the shorter way to the same chunk.

    The chunk equals LeRobot's within the rounding of another order of sums; not to the last bit.

    Args:
        core: LeRobot's `PI0Pytorch`, or a fork of it.
    """
    way = _Way(core)
    with (
        spliced(core, without_padding(prefix)),
        replaced(core.paligemma_with_expert, forward=way.encode),
        replaced(core, denoise_step=way.velocity),
    ):
        yield


def without_padding(prefix: Prefix) -> Prefix:
    """The prefix without the columns that are not valid in any row."""
    kept_S = prefix.valid_BS.any(0)
    # A block may begin in a column that goes, so that its next column begins it now.
    block_BS = prefix.block_BS.long().cumsum(1)[:, kept_S]
    return replace(
        prefix,
        tokens_BSD=prefix.tokens_BSD[:, kept_S],
        valid_BS=prefix.valid_BS[:, kept_S],
        block_BS=block_BS.diff(dim=1, prepend=torch.zeros_like(block_BS[:, :1])) > 0,
        span_BS=prefix.span_BS[:, kept_S],
    )


@dataclass
class Kept:
    """Keys and values of the prefix, layer by layer, and what the tokens of every denoising step have in common.

    It stands where transformers' layers expect a cache: the first keys of a layer are kept, later ones are only joined
    to them.

    Attributes:
        layers: (keys, values) of each layer, float[B, K, S, W].
        mask_B1TC: Added to the scores of attention, C being S + T columns; None before the first step.
        positions_BT: Of the tokens of a step.
    """

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    mask_B1TC: Tensor | None = None
    positions_BT: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What the layer's queries attend to; transformers' name for it."""
        if layer == len(self.layers):
            self.layers.append((keys, values))
            return keys, values
        before = self.layers[layer]
        return torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)

    def get_seq_length(self, *_: Any) -> int:
        """S, once it is known; transformers' name for it."""
        return self.layers[0][0].shape[2] if self.layers else 0


class _Way:
    """What stands in the place of two of LeRobot's methods while one chunk is sampled."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.language = core.paligemma_with_expert.paligemma.model.language_model
        self.expert = core.paligemma_with_expert.gemma_expert.model
        self.forward = core.paligemma_with_expert.forward

    def encode(self, *, inputs_embeds: Sequence[Tensor | None], **given: Any) -> tuple[None, Kept]:
        """The language model over the prefix, for its keys and values alone."""
        kept = Kept()
        given |= {"past_key_values": kept, "use_cache": True}
        with _fused(self.language.config), replaced(self.language.layers[-1].mlp, forward=_unread):
            self.forward(inputs_embeds=inputs_embeds, **given)
        return None, kept

    def velocity(
        self, state: Tensor, prefix_pad_masks: Tensor, past_key_values: Kept, x_t: Tensor, timestep: Tensor
    ) -> Tensor:
        """The expert's velocity float[B, H, A] of the noisy actions x_t at a time; parameters as LeRobot names them."""
        tokens_BTW, valid_BT, block_BT, condition = self.core.embed_suffix(state, x_t, timestep)
        if past_key_values.mask_B1TC is None:
            _place(past_key_values, prefix_pad_masks, valid_BT, block_BT)
        with _fused(self.expert.config):
            (_, hidden_BTW), _ = self.forward(
                attention_mask=past_key_values.mask_B1TC,
                position_ids=past_key_values.positions_BT,
                past_key_values=past_key_values,
                inputs_embeds=[None, tokens_BTW],
                use_cache=False,
                adarms_cond=[None, condition],
            )
        return self.core.action_out_proj(hidden_BTW[:, -x_t.shape[1] :].float())


def _unread(hidden_BSD: Tensor) -> Tensor:
    """In the place of an MLP whose outcome nobody reads."""
    return hidden_BSD


def _place(kept: Kept, prefix_BS: Tensor, valid_BT: Tensor, block_BT: Tensor) -> None:
    """Mask and positions of a step's tokens behind the prefix, by LeRobot's rules."""
    from lerobot.policies.pi0 import modeling_pi0

    T = valid_BT.shape[1]
    valid_BC = torch.cat([prefix_BS, valid_BT], 1)
    block_BC = torch.cat([torch.zeros_like(prefix_BS), block_BT.bool()], 1)
    seen_BTC = modeling_pi0.make_att_2d_masks(valid_BC, block_BC.long())[:, -T:]
    kept.mask_B1TC = modeling_pi0.prepare_attention_masks_4d(seen_BTC)
    kept.positions_BT = (valid_BC.cumsum(1) - 1)[:, -T:]


@contextmanager
def _fused(config: Any) -> Iterator[None]:
    """Let the layers of one model of transformers attend by `attend`."""
    before, config._attn_implementation = config._attn_implementation, _registered()
    try:
        yield
    finally:
        config._attn_implementation = before


@cache
def _registered() -> str:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register("pixelvla_shared", attend)
    return "pixelvla_shared"


def attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """torch's fused attention behind the interface of transformers.

    Args:
        query: float[B, G, T, W]. key, value: float[B, K, C, W]. attention_mask: float[B, 1, T, C], added to the scores.

    Returns:
        float[B, T, G, W], and no weights.
    """
    shared = query.shape[1] // key.shape[1]
    found_BGTW = F.scaled_dot_product_attention(
        query,
        _per_head(key, shared),
        _per_head(value, shared),
        attn_mask=attention_mask.to(query.dtype),
        dropout_p=dropout,
        scale=scaling,
    )
    return found_BGTW.transpose(1, 2).contiguous(), None


def _per_head(found_BKCW: Tensor, shared: int) -> Tensor:
    """float[B, G, C, W]; no copy where all heads share one, as in pi0."""
    return found_BKCW[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2)
