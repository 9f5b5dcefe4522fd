"""The continuous action head: hidden states of learned query tokens to a chunk of actions, trained with L1.

Section 4.1 of the paper: a linear projector, N_r residual blocks and an MLP projector. The paper leaves open which
hidden states are read: here those of H learned queries that stand last in the sequence, one per step of the chunk, or
that of the sequence's last token, which a base that acts behind it has taught to hold what its actions depend on.

Shapes: B batch, H horizon, D model width, A action dim.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from pixelvla_core.errors import UserError
from pixelvla_core.model.config import ActionHeadConfig
from pixelvla_core.seam.backbone import BackboneAdapter
from pixelvla_core.seam.batch import Batch
from pixelvla_core.seam.prefix import Past, Prefix
from pixelvla_core.types import BackboneSpec


class ResidualBlock(nn.Module):
    """``x + GELU(Linear(LN(x)))``; without the GELU, N_r blocks would hardly do more than one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.gelu(self.linear(self.norm(x)))


class L1ActionHead(nn.Module):
    """Readout, linear projector, residual blocks, MLP; one pass gives the whole chunk.

    In a causal backbone a query sees the earlier ones; in a prefix-LM the queries are a block and see each other.

    Attributes:
        horizon: H, steps in a chunk.
        requires: What the backbone must provide.
        readout: "queries" or "last", see ``ActionHeadConfig``.
        queries_HD: What is learned for each step: a token, or what is added to the last token's hidden state.
    """

    requires = frozenset({"hidden"})

    def __init__(self, config: ActionHeadConfig, spec: BackboneSpec, *, horizon: int, dim: int) -> None:
        super().__init__()
        width = config.width or spec.width
        self.horizon, self.readout = horizon, config.readout
        self.queries_HD = nn.Parameter(0.02 * torch.randn(horizon, spec.width))
        self.project = nn.Linear(spec.width, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))

    def loss(self, backbone: BackboneAdapter, prefix: Prefix | None, batch: Batch, past: Past | None = None) -> Tensor:
        """Mean absolute error over the valid steps.

        Args:
            prefix: What the queries follow; not needed with ``past``.
            batch: Has ``actions_BHA`` and ``action_valid_BH``.
            past: What a frozen prefix left behind: then the queries alone run through the transformer.
        """
        return l1_loss(self.actions(backbone, prefix, past), batch)

    def prefill(self, backbone: BackboneAdapter, prefix: Prefix) -> Past:
        """What a frozen prefix leaves behind for this head, to be handed to ``loss`` as ``past``."""
        if self.readout == "queries":
            return backbone.prefill(prefix)
        return Past((), prefix.valid_BS, prefix.last(backbone.hidden(prefix)))

    def act(self, backbone: BackboneAdapter, prefix: Prefix, batch: Batch) -> Tensor:
        """Normalised actions, float[B, H, A]."""
        return self.actions(backbone, prefix)

    def actions(self, backbone: BackboneAdapter, prefix: Prefix | None, past: Past | None = None) -> Tensor:
        """Normalised actions float32[B, H, A] from a prefix, or from what it left behind."""
        if prefix is None and past is None:
            raise ValueError("the action head needs a prefix or a past")
        read = self._queries if self.readout == "queries" else self._last
        hidden_BHD = read(backbone, prefix, past)
        return self.mlp(self.blocks(self.project(hidden_BHD.to(self.project.weight.dtype)))).float()

    def _last(self, backbone: BackboneAdapter, prefix: Any, past: Past | None) -> Tensor:
        last_BD = prefix.last(backbone.hidden(prefix)) if past is None else cast(Tensor, past.last_BD)
        return last_BD[:, None] + self.queries_HD

    def _queries(self, backbone: BackboneAdapter, prefix: Any, past: Past | None) -> Tensor:
        if past is not None:
            queries_BHD = self.queries_HD.to(past.layers[0][0].dtype).expand(len(past.valid_BS), -1, -1)
            return backbone.hidden(Prefix.of("query", queries_BHD), past)
        queries_BHD = self.queries_HD.expand(len(prefix.tokens_BSD), -1, -1)
        whole = prefix.insert("query", queries_BHD, after="", new_block=True)
        return whole.read("query", backbone.hidden(whole))


def l1_loss(actions_BHA: Tensor, batch: Batch) -> Tensor:
    """Mean absolute error over valid steps; zero (with gradient) if no step of the batch is valid.

    Raises:
        UserError: the batch's chunk differs in shape from what the head predicts.
    """
    if batch.actions_BHA is None or batch.actions_BHA.shape != actions_BHA.shape:
        found = "no actions" if batch.actions_BHA is None else f"actions of shape {tuple(batch.actions_BHA.shape)}"
        raise UserError(
            f"The batch has {found}; the action head predicts {tuple(actions_BHA.shape)} [batch, horizon, action dim]. "
            "Make `action.horizon` and the dataset's action dimension agree."
        )
    gap_BHA = actions_BHA - batch.actions_BHA.to(actions_BHA)
    if batch.action_valid_BH is None:
        return gap_BHA.abs().mean()
    valid_BH = batch.action_valid_BH
    # Cut out before abs(), so that a NaN behind the end of an episode meets no gradient.
    gap_BHA = torch.where(valid_BH[..., None], gap_BHA, 0.0)
    return gap_BHA.abs().mean(-1).sum() / valid_BH.sum().clamp(min=1)
