"""What an adapter implements so that core can splice into its base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor, nn

from pixelvla_core.seam.batch import Batch, Features, Sample
from pixelvla_core.seam.prefix import Past, Prefix
from pixelvla_core.types import BackboneSpec

if TYPE_CHECKING:
    from pixelvla_core.contract.statistics import Statistics


@runtime_checkable
class BackboneAdapter(Protocol):
    """A base model behind the seam. ``check_backbone`` in ``pixelvla_core.testing`` tests the whole contract."""

    spec: BackboneSpec
    module: nn.Module

    def collate(self, samples: Sequence[Sample], *, train: bool) -> Batch:
        """Tokenise and resize; fill ``inputs`` and ``geometry``. Prompts, masks and actions are added by core."""
        ...

    def features(self, batch: Batch, levels: Sequence[float]) -> Features:
        """One vision pass. ``levels`` are depth fractions in (0, 1]; 1.0 is the block that the projector reads."""
        ...

    def prefix(self, batch: Batch, features: Features) -> Prefix:
        """The token sequence of the base, with spans "image:<camera>" and "instruction" (ends with the instruction)."""
        ...

    def hidden(self, prefix: Prefix, past: Past | None = None) -> Tensor:
        """Hidden states after the last layer (and its final norm), float[B, S, D].

        With a ``past``, ``prefix`` holds only the tokens that follow it.
        """
        ...

    def prefill(self, prefix: Prefix) -> Past:
        """Run the transformer over ``prefix`` and keep what later tokens need of it."""
        ...


@runtime_checkable
class StateBackbone(BackboneAdapter, Protocol):
    """A base that normalises the robot's state, and whose weights may come without statistics of it."""

    @property
    def lacks_states(self) -> bool:
        """Whether it reads states and has no statistics of them; training then takes the data's."""
        ...

    def take_states(self, statistics: Statistics) -> None:
        """Normalise states by these, unless it has statistics of its own. They travel in the action contract."""
        ...


@runtime_checkable
class NativeBackbone(BackboneAdapter, Protocol):
    """A base that can learn and act without pixelvla's head; "native" is in ``spec.provides``."""

    def native_loss(self, prefix: Prefix, batch: Batch) -> Tensor:
        """The base's own training objective on ``batch.actions_BHA``: a scalar."""
        ...

    def native_actions(self, prefix: Prefix, batch: Batch) -> Tensor:
        """The base's own prediction as normalised actions, float[B, spec.action.horizon, spec.action.widest]."""
        ...


@runtime_checkable
class FlowBackbone(BackboneAdapter, Protocol):
    """A base with a flow-matching expert; "flow" is in ``spec.provides``."""

    def flow_loss(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, time_B: Tensor) -> Tensor:
        """Squared error of the velocity, unreduced, float[B, H, A]."""
        ...

    def flow_sample(self, prefix: Prefix, batch: Batch, noise_BHA: Tensor, steps: int) -> Tensor:
        """Integrate from noise to normalised actions, float[B, H, A]."""
        ...
