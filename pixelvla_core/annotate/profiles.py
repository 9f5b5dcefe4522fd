"""What gripper values mean in well-known datasets, by name.

Public pipelines disagree on the sign for Bridge and Fractal; a profile is checked against the data wherever the state
measures the opening.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pixelvla_core.errors import DataError, suggest

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_SPELT = re.compile(rf"(delta,)?open={_NUMBER},closed={_NUMBER}")


@dataclass(frozen=True)
class Profile:
    """Gripper values of a dataset's actions.

    Attributes:
        open: The command that opens.
        closed: The command that closes.
        delta: Commands are changes, ``closed`` being one by the full range; 0 keeps what is.
        state: What a state named just after the gripper measures there: 1 how open it is, -1 how closed, 0 unknown.
    """

    open: float
    closed: float
    delta: bool = False
    state: int = 0

    def __str__(self) -> str:
        return f"{self.closed:g} closes and {self.open:g} opens" + (", as changes" if self.delta else "")


PROFILES = {
    "fractal": Profile(open=1.0, closed=0.0, state=-1),
    "fractal_delta": Profile(open=-1.0, closed=1.0, delta=True, state=-1),
    "bridge": Profile(open=1.0, closed=0.0, state=1),
    "libero": Profile(open=-1.0, closed=1.0),
    "libero_rlds": Profile(open=1.0, closed=0.0),
    "tabletop": Profile(open=1.0, closed=0.0),
}
"""fractal: after OpenVLA's relabelling to absolute openings; fractal_delta: as Google's robot recorded it, 1 closes.
libero: as the environment takes it; libero_rlds: as OpenVLA's converted dataset has it. Google's robot recorded in its
state how closed its gripper was, WidowX in Bridge how open."""

OPTIONS = f"{', '.join(PROFILES)}, or the values themselves as open=1,closed=0 (delta,open=-1,closed=1 for changes)"
"""What a profile can be, for messages."""


def profile_of(name: str) -> Profile:
    """Return a profile by name, or as its values say: ``"open=100,closed=0"``, ``"delta,open=-1,closed=1"``.

    Raises:
        DataError: there is none of this name, or open and closed are the same.
    """
    if spelt := _SPELT.fullmatch(name):
        delta, opened, closed = spelt.groups()
        if float(opened) == float(closed) or (delta and float(opened) != -float(closed)):
            raise DataError(
                f"The gripper profile {name!r} cannot be: open and closed must differ, and as changes be opposite."
            )
        return Profile(open=float(opened), closed=float(closed), delta=bool(delta))
    if name not in PROFILES:
        raise DataError(f"There is no gripper profile {name!r}.{suggest(name, PROFILES)} Known: {OPTIONS}.")
    return PROFILES[name]
