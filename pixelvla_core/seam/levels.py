"""Which block of a vision tower stands at a depth fraction: one rule for every backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pixelvla_core.errors import UserError


def level_blocks(fractions: Sequence[float], blocks: int) -> list[int]:
    """Return the index of the block whose output stands at each depth fraction, halves rounded up.

    Args:
        fractions: In (0, 1]; 1.0 is the last block that is computed, the one the projector reads.
        blocks: How many blocks are computed.

    Raises:
        UserError: a fraction is outside of (0, 1].
    """
    if any(not 0 < fraction <= 1 for fraction in fractions):
        raise UserError(f"Feature levels are depth fractions in (0, 1]; got {list(fractions)}.")
    return [max(math.floor(fraction * blocks + 0.5), 1) - 1 for fraction in fractions]
