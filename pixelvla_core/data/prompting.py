"""How often each kind of prompt is given while training, so that one model takes text, visual prompts, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelvla_core import prompts
from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.errors import RecipeError, sentence
from pixelvla_core.recipe.schema import PROMPT_KINDS as KINDS
from pixelvla_core.recipe.schema import check_mixture

NONE = KINDS[0]


@dataclass(frozen=True)
class PromptMix:
    """Weights of prompt kinds: "none", "point", "line", "box", "mask", or several joined by "+", as in "point+box".

    Weights need not sum to one. "none" gives no visual prompt.

    Raises:
        RecipeError: an unknown kind, a weight below zero, or nothing to draw from.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        for mixture, weight in self.weights.items():
            try:
                check_mixture("prompts", mixture)
            except ValueError as error:
                raise RecipeError(sentence(str(error))) from error
            if not weight >= 0:
                raise RecipeError(f"The weight of prompt kind {mixture!r} is {weight}; it must not be below zero.")
        if not sum(self.weights.values()) > 0:
            raise RecipeError(f"The weights of prompt kinds are {dict(self.weights)}; at least one must be above zero.")

    @property
    def uses_masks(self) -> bool:
        """Whether anything but "none" can be drawn."""
        return any(weight > 0 for mixture, weight in self.weights.items() if mixture != NONE)

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        """Draw the kinds of prompts of one sample; empty for "none"."""
        mixtures = list(self.weights)
        limits = np.cumsum(list(self.weights.values()))
        chosen = mixtures[np.searchsorted(limits, rng.random() * limits[-1], side="right")]
        return () if chosen == NONE else tuple(chosen.split("+"))


def derive_prompts(mask: np.ndarray, kinds: tuple[str, ...], rng: np.random.Generator) -> tuple[prompts.Prompt, ...]:
    """Derive one prompt of each kind from a mask, bool[H, W]."""
    return tuple(derive_prompt(mask, kind, rng) for kind in kinds)
