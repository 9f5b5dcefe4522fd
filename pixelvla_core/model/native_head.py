"""The base model's own objective and prediction behind the interface of a head, for baselines."""

from __future__ import annotations

from torch import Tensor, nn

from pixelvla_core.errors import UserError
from pixelvla_core.model.config import NativeHeadConfig
from pixelvla_core.seam.backbone import NativeBackbone
from pixelvla_core.seam.batch import Batch
from pixelvla_core.seam.prefix import Past, Prefix
from pixelvla_core.types import BackboneSpec


class NativeHead(nn.Module):
    """Has no parameters: asks the backbone.

    Attributes:
        horizon: The base's own horizon, whatever the recipe says.
        dim: Values of a step that are kept: the data's, where the base pads.
        requires: What the backbone must provide.
    """

    requires = frozenset({"native"})

    def __init__(self, config: NativeHeadConfig, spec: BackboneSpec, *, horizon: int = 0, dim: int = 0) -> None:
        super().__init__()
        if "native" not in spec.provides:
            raise UserError(
                f"The head 'native' needs a backbone that provides 'native'; this one provides "
                f"{sorted(spec.provides)}. Choose another head, such as 'l1'."
            )
        self.horizon = spec.action.horizon
        self.dim = dim or spec.action.dim
        self._check_dim(spec)

    def _check_dim(self, spec: BackboneSpec) -> None:
        padded = spec.action.max_dim is not None
        if self.dim > spec.action.widest or not (padded or self.dim == spec.action.dim):
            raise UserError(
                f"The base predicts {spec.action.widest} values a step{' at most' if padded else ''}, the data has "
                f"{self.dim}. The head 'native' cannot change that; choose data that fits, or the head 'l1'."
            )

    def loss(self, backbone: NativeBackbone, prefix: Prefix, batch: Batch, past: Past | None = None) -> Tensor:
        """The base's own training objective, a scalar. It reads the whole prefix, so it takes no ``past``."""
        if past is not None:
            raise UserError("The head 'native' cannot train after a cached prefix; leave caching of hidden states off.")
        return backbone.native_loss(prefix, batch)

    def act(self, backbone: NativeBackbone, prefix: Prefix, batch: Batch) -> Tensor:
        """The base's own prediction, normalised, float[B, H, A]."""
        return backbone.native_actions(prefix, batch)[..., : self.dim]
