"""What the demonstration compares: the rows of its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Method:
    """One model of the table.

    Attributes:
        name: Of its folder.
        title: In the table.
        recipe: What tunes it; None is the base model as it comes.
        stages: Of the recipe.
        prompts: What the user gives on the first observation, one row of the table each.
        execute: Steps of a chunk to execute before looking again; all of them if None.
        claimed: Whether the report claims anything of it. What is not claimed is played less often.
    """

    name: str
    title: str
    recipe: str | None
    stages: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("none",)
    execute: int | None = None
    claimed: bool = True


STAGES: Final = ("cat", "pue")
PROMPTS: Final = ("none", "point", "line", "box", "mask")

METHODS: Final = (
    Method("base", "base model", None),
    Method("sft", "SFT", "mini/sft", ("sft",)),
    Method("pixelvla", "PixelVLA", "mini/pixelvla", STAGES, PROMPTS, execute=4),
    Method("overlay", "overlay", "mini/overlay", STAGES, PROMPTS, execute=4, claimed=False),
)
