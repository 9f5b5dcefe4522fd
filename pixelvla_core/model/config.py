"""Options of core's own parts. Importing this needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pixelvla_core.errors import RecipeError


def _check(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value}; expected {expected}.")


READOUTS = ("queries", "last")
"""What of the sequence the continuous head may read."""
_WIDTH = "0 for the backbone's width, or more"


@dataclass(kw_only=True)
class PixelEncoderConfig:
    """Options of the multiscale pixel-aware encoder (Eq. 3 of the paper).

    Attributes:
        levels: Depth fractions in (0, 1] of the vision tower's blocks to read; 1.0 is the one the projector reads.
        hidden: Width of the sum over levels and of the MLP; 0 takes the backbone's width.
        norm: LayerNorm on each level's mean before its linear layer. Without it the deepest level, whose residual
            stream is tens of times larger in trained ViTs, drowns the others in the sum.
        position: Add the Fourier position of the mask's centroid to the sum. Eq. 3 alone says what lies under the
            mask, and where only as far as the features know.
        anchor: Add the MLP's output to the mean of the base's image tokens under the mask. The language model reads
            those from the first step on; a token made of random weights it has to learn to read.
    """

    levels: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75, 1.0])
    hidden: int = 0
    norm: bool = True
    position: bool = True
    anchor: bool = True

    def __post_init__(self) -> None:
        inside = bool(self.levels) and all(0 < level <= 1 for level in self.levels)
        _check(inside, "levels", self.levels, "at least one depth fraction in (0, 1], such as [0.25, 0.5, 0.75, 1.0]")
        _check(self.hidden >= 0, "hidden", self.hidden, _WIDTH)


@dataclass(kw_only=True)
class PromptEncoderConfig:
    """Options of the visual prompt-aware encoder, after SAM's.

    Attributes:
        width: D_s, width of the prompt features; even. SAM uses 256.
        hidden: Width inside the MLP from D_s to the backbone's width; 0 takes the backbone's width.
        scale: Standard deviation of the random frequencies. SAM uses 1.
        seed: Seed of the random frequencies, which are saved with the model.
    """

    width: int = 256
    hidden: int = 0
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        even = self.width > 0 and self.width % 2 == 0
        _check(even, "width", self.width, "an even number of features, such as 256")
        _check(self.hidden >= 0, "hidden", self.hidden, _WIDTH)
        _check(0 < self.scale < math.inf, "scale", self.scale, "a finite number above 0")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(kw_only=True)
class OverlayConfig:
    """Options of the overlay, which draws prompts onto the image. Sizes are fractions of the image's shorter side.

    Attributes:
        line: Width of lines, box edges and mask contours.
        point: Radius of the disc of a point.
        tint: How much of a mask's area is colour, in [0, 1].
    """

    line: float = 0.012
    point: float = 0.02
    tint: float = 0.35

    def __post_init__(self) -> None:
        for name in ("line", "point", "tint"):
            _check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")


@dataclass(kw_only=True)
class ActionHeadConfig:
    """Options of the continuous action head.

    Attributes:
        width: Width of the residual blocks; 0 takes the backbone's width.
        blocks: N_r, number of residual blocks.
        readout: Which hidden states are read. "queries": those of learned tokens behind the sequence, one per step.
            "last": that of the sequence's last token, behind which the base itself would act, with a learned vector
            per step added to it.
    """

    width: int = 0
    blocks: int = 2
    readout: str = "queries"

    def __post_init__(self) -> None:
        _check(self.readout in READOUTS, "readout", self.readout, " or ".join(READOUTS))
        _check(self.width >= 0, "width", self.width, _WIDTH)
        _check(self.blocks >= 0, "blocks", self.blocks, "0 or more")


@dataclass(kw_only=True)
class NativeHeadConfig:
    """The base's own objective and prediction; it has no options."""
