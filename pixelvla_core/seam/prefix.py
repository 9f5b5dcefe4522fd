"""Prefix: what the base model reads, before its transformer.

Shapes: B batch, S sequence, K inserted tokens, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """A batch of token sequences in which every token knows its span.

    Attributes:
        tokens_BSD: Embedded tokens, float[B, S, D].
        valid_BS: bool[B, S]; a token that is not valid takes no position and nobody attends to it.
        block_BS: bool[B, S]; True starts an attention block (a prefix-LM attends within a block and to earlier blocks).
            Ignored by causal backbones.
        span_BS: int[B, S]; index into ``names``.
        names: Span names, such as "bos", "image:front", "instruction", "text", then "pixel", "prompt", "query".
            Spans may end at a different column in every row.
    """

    tokens_BSD: Tensor
    valid_BS: Tensor
    block_BS: Tensor
    span_BS: Tensor
    names: tuple[str, ...]

    @classmethod
    def of(cls, name: str, tokens_BSD: Tensor, valid_BS: Tensor | None = None, *, new_block: bool = True) -> Prefix:
        """A prefix with a single span; all tokens are valid unless ``valid_BS`` says otherwise."""
        shape, device = tokens_BSD.shape[:2], tokens_BSD.device
        if valid_BS is None:
            valid_BS = torch.ones(shape, dtype=torch.bool, device=device)
        block_BS = torch.zeros(shape, dtype=torch.bool, device=device)
        if new_block and shape[1]:
            block_BS[:, 0] = True
        return cls(tokens_BSD, valid_BS, block_BS, torch.zeros(shape, dtype=torch.long, device=device), (name,))

    @classmethod
    def cat(cls, parts: list[Prefix]) -> Prefix:
        """Join prefixes along the sequence; names must differ."""
        names: tuple[str, ...] = ()
        spans = []
        for part in parts:
            spans.append(part.span_BS + len(names))
            names += part.names
        if len(set(names)) != len(names):
            raise ValueError(f"span names must differ, got {names}")
        return cls(
            torch.cat([part.tokens_BSD for part in parts], 1),
            torch.cat([part.valid_BS for part in parts], 1),
            torch.cat([part.block_BS for part in parts], 1),
            torch.cat(spans, 1),
            names,
        )

    def insert(
        self, name: str, tokens_BKD: Tensor, valid_BK: Tensor | None = None, *, after: str, new_block: bool = False
    ) -> Prefix:
        """Return a prefix with a new span right behind the last token of span ``after``, row by row.

        Args:
            name: Name of the new span.
            tokens_BKD: float[B, K, D]; cast to the prefix's dtype.
            valid_BK: bool[B, K]; all True if left out.
            after: An existing span, or "" to append at the end.
            new_block: The span starts an attention block of its own: what stands before does not see it.

        Raises:
            ValueError: there is no span ``after``, or a row with valid new tokens has no token of it.
        """
        new = Prefix.of(name, tokens_BKD.to(self.tokens_BSD.dtype), valid_BK, new_block=new_block)
        joined = Prefix.cat([self, new])
        if not after or tokens_BKD.shape[1] == 0:
            return joined
        S, K = self.span_BS.shape[1], tokens_BKD.shape[1]
        columns_S = torch.arange(S, device=self.span_BS.device)
        end_B = torch.where(self.span_BS == self._index(after), columns_S, -1).amax(1)
        self._check_present(end_B, new, name, after)
        # Sorting columns by (old column, or end + 1/2 for new ones) places the new span without a loop over rows.
        key_BS = torch.cat([columns_S.expand(len(end_B), S), (end_B[:, None] + 0.5).expand(-1, K)], 1)
        return joined._take(key_BS.argsort(dim=1, stable=True))

    def _check_present(self, end_B: Tensor, new: Prefix, name: str, after: str) -> None:
        """Refuse rows without the span; where all new tokens are padding, their place means nothing."""
        lost_B = (end_B < 0) & new.valid_BS.any(1)
        if lost_B.any():
            raise ValueError(
                f"{name!r} shall go behind the span {after!r}, of which the rows {lost_B.nonzero().flatten().tolist()} "
                f"have no token; give every row at least one. This prefix has {', '.join(self.names)}."
            )

    def _take(self, order_BS: Tensor) -> Prefix:
        index = order_BS[..., None].expand(-1, -1, self.tokens_BSD.shape[2])
        return replace(
            self,
            tokens_BSD=self.tokens_BSD.gather(1, index),
            valid_BS=self.valid_BS.gather(1, order_BS),
            block_BS=self.block_BS.gather(1, order_BS),
            span_BS=self.span_BS.gather(1, order_BS),
        )

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"no span {name!r}; this prefix has {', '.join(self.names)}")
        return self.names.index(name)

    def read(self, name: str, hidden_BSD: Tensor) -> Tensor:
        """Pick the hidden states of a span that has the same number of tokens in every row: float[B, K, D]."""
        here_BS = self.span_BS == self._index(name)
        return hidden_BSD[here_BS].view(len(here_BS), -1, hidden_BSD.shape[-1])

    def last(self, hidden_BSD: Tensor) -> Tensor:
        """Pick the hidden state of the last valid token of every row: float[B, D]."""
        columns_S = torch.arange(self.valid_BS.shape[1], device=self.valid_BS.device)
        last_B = torch.where(self.valid_BS, columns_S, 0).amax(1)
        return hidden_BSD[torch.arange(len(last_B), device=last_B.device), last_B]

    def positions_BS(self, start_B: Tensor | None = None) -> Tensor:
        """int[B, S]: position of each token, ``cumsum(valid) - 1``; one rule for every backbone.

        Args:
            start_B: Number of valid tokens that were read before (with a past); zero if left out.
        """
        positions_BS = (self.valid_BS.long().cumsum(1) - 1).clamp(min=0)
        return positions_BS if start_B is None else positions_BS + start_B[:, None]

    def mask_BSS(self, causal: bool) -> Tensor:
        """bool[B, S, S]: True where the row's token may attend to the column's.

        A token that is not valid attends to itself alone, so that no softmax runs over nothing.
        """
        S = self.valid_BS.shape[1]
        if causal:
            order_BSS = torch.ones(S, S, dtype=torch.bool, device=self.valid_BS.device).tril()[None]
        else:
            block_BS = self.block_BS.long().cumsum(1)
            order_BSS = block_BS[:, None, :] <= block_BS[:, :, None]
        seen_BSS = order_BSS & self.valid_BS[:, None, :] & self.valid_BS[:, :, None]
        return seen_BSS | torch.eye(S, dtype=torch.bool, device=self.valid_BS.device)


@dataclass(frozen=True)
class Past:
    """What a prefix left behind in the transformer, for tokens that come after it and that it does not see.

    Attributes:
        layers: Per layer (keys, values), each float[B, heads, S, head width], positions already applied.
        valid_BS: bool[B, S] of the prefix.
        last_BD: For a head that reads no more of it, the hidden state of each row's last valid token, float[B, D];
            there are no layers then.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    valid_BS: Tensor
    last_BD: Tensor | None = None

    def to(self, device: torch.device) -> Past:
        """The same on a device."""
        layers = tuple((keys.to(device), values.to(device)) for keys, values in self.layers)
        return Past(layers, self.valid_BS.to(device), None if self.last_BD is None else self.last_BD.to(device))

    @property
    def length_B(self) -> Tensor:
        """int[B]: number of valid tokens, that is, the position of the next token."""
        return self.valid_BS.sum(1)

    def mask_BKP(self, new: Prefix, causal: bool) -> Tensor:
        """bool[B, K, S + K]: which of the past and of its own kind each new token attends to."""
        past_BKS = self.valid_BS[:, None, :] & new.valid_BS[:, :, None]
        return torch.cat([past_BKS, new.mask_BSS(causal)], 2)
