"""When two lists of names say the same of an action's dimensions."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MOTION = "x|y|z|roll|pitch|yaw"
_CHANGE = re.compile(rf"(?:d|delta)_?({_MOTION})|({_MOTION})_(?:d|delta)")


def same_names(one: Sequence[str], two: Sequence[str], *, changes: bool = False) -> bool:
    """Whether two lists name the same dimensions in the same order.

    "dx", "d_x", "delta_x" and "x_delta" are one name, in letters of any size.

    Args:
        changes: Whether both sides state that actions are changes; then "x" says no less than "dx".
    """
    return [_plain(name, changes) for name in one] == [_plain(name, changes) for name in two]


def _plain(name: str, changes: bool) -> str:
    lower = name.lower()
    found = _CHANGE.fullmatch(lower)
    if found is None:
        return lower
    axis = found[1] or found[2]
    return axis if changes else f"d{axis}"
