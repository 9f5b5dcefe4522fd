"""What the demonstration compares: the rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Method:
    """One model of the table.

    Attributes:
        name: Of its folder.
        title: In the table.
        recipe: What tunes it; None is the base model as it comes.
        base: The backbone whose mini it stands on.
        options: Of the recipe that it is wrapped with, where nothing tunes it.
        stages: Of the recipe.
        prompts: What the user gives on the first observation, one row of the table each.
        execute: Steps of a chunk to execute before looking again; all of them if None.
        claimed: Whether the report claims anything of it. What is not claimed is played less often.
    """

    name: str
    title: str
    recipe: str | None
    base: str = "openvla"
    options: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("none",)
    execute: int | None = None
    claimed: bool = True


STAGES: Final = ("cat", "pue")
PROMPTS: Final = ("none", "point", "line", "box", "mask")

_OPENVLA = (
    Method("base", "base model", None),
    Method("sft", "SFT", "mini/sft", stages=("sft",)),
    Method("pixelvla", "PixelVLA", "mini/pixelvla", stages=STAGES, prompts=PROMPTS, execute=4),
    Method("overlay", "overlay", "mini/overlay", stages=STAGES, prompts=PROMPTS, execute=4, claimed=False),
)
_PI0 = (
    # As in the recipes: what is drawn depends on the sample alone, so that an evaluation repeats.
    Method("pi0_base", "pi0 base model", None, "pi0", ("backbone.options.fixed_noise=true",), execute=4),
    Method("pi0_sft", "pi0 SFT", "mini/sft_pi0", "pi0", stages=("sft",), execute=4),
    Method("pi0_pixelvla", "PixelVLA-pi0", "mini/pixelvla_pi0", "pi0", stages=("pue",), prompts=PROMPTS, execute=4),
)
METHODS: Final = {"openvla": _OPENVLA, "pi0": _PI0}
"""The rows of each base."""


def methods_of(bases: Sequence[str]) -> list[Method]:
    """The rows of several bases, in the order of the table."""
    return [method for base in METHODS for method in METHODS[base] if base in bases]
