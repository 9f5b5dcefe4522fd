"""Pure data that core and adapters share. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GROUPS = ("vision", "projector", "llm", "expert", "action_io")
"""The groups of a base's parameters that core knows; an adapter has some of them."""

RULES = ("q99", "min_max", "mean_std")
"""How statistics normalise actions: quantiles or extremes to [-1, 1], or zero mean and unit deviation."""

SPLICES = ("after_image", "in_text")
"""Where pixel and prompt tokens go: Fig. 2 of the paper, or its appendix A.1."""


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """What one action of a base model is.

    Attributes:
        horizon: Number of future steps H that the base predicts at once.
        dim: Number of values A in one step.
        normalized: The base works on actions in [-1, 1]; the action contract maps them to physical units and back.
        max_dim: The widest action that the base takes, if it pads narrower ones itself as pi0 does; None: ``dim`` only.
    """

    horizon: int
    dim: int
    normalized: bool = True
    max_dim: int | None = None

    @property
    def widest(self) -> int:
        """Values in one step of the base's own prediction."""
        return self.dim if self.max_dim is None else self.max_dim


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Facts about a backbone that core needs; the only thing core knows of it.

    Attributes:
        width: D, width of the tokens that the transformer reads.
        causal: True for a causal transformer (Llama); False for a prefix-LM, whose blocks attend within themselves.
        image_size: Side of the square image that the vision towers read, in pixels.
        grid: Patch rows and columns of one image.
        cameras: Names of the cameras, in the order in which their tokens stand in the prefix.
        level_depth: Depth of the tower whose blocks give the levels.
        level_width: C, channel width of those blocks.
        action: The base's own action.
        state_dim: Values of the robot's state that the base was made for; None if it reads none, or any number.
        provides: What heads may ask for: "hidden" (last hidden states), "native" (the base's own objective and
            prediction), "flow" (velocity of a flow-matching expert).
        groups: Group name, one of ``GROUPS`` -> regular expression that full-matches the names of its parameters in
            ``adapter.module``.
    """

    width: int
    causal: bool
    image_size: int
    grid: tuple[int, int]
    cameras: tuple[str, ...]
    level_depth: int
    level_width: int
    action: ActionSpec
    state_dim: int | None = None
    provides: frozenset[str] = frozenset({"hidden"})
    groups: Mapping[str, str] = field(default_factory=dict)
