"""What gripper values mean in well-known datasets, by name.

Public pipelines disagree on the sign for Bridge and Fractal; a profile is checked against the data wherever the state
measures the opening.
"""

from __future__ import annotations

from dataclasses import dataclass

from pixelvla_core.errors import DataError, suggest


@dataclass(frozen=True)
class Profile:
    """Gripper values of a dataset's actions.

    Attributes:
        open: The command that opens. closed: The command that closes.
        delta: Commands are changes; 0 keeps what is.
    """

    open: float
    closed: float
    delta: bool = False


PROFILES = {
    "fractal": Profile(open=1.0, closed=0.0),
    "fractal_delta": Profile(open=-1.0, closed=1.0, delta=True),
    "bridge": Profile(open=1.0, closed=0.0),
    "libero": Profile(open=-1.0, closed=1.0),
    "libero_rlds": Profile(open=1.0, closed=0.0),
    "tabletop": Profile(open=1.0, closed=0.0),
}
"""fractal: after OpenVLA's relabelling to absolute openings; fractal_delta: as Google's robot recorded it, 1 closes.
libero: as the environment takes it; libero_rlds: as OpenVLA's converted dataset has it."""


def profile_of(name: str) -> Profile:
    """Return a profile by name.

    Raises:
        DataError: there is none of this name.
    """
    if name not in PROFILES:
        raise DataError(f"There is no gripper profile {name!r}.{suggest(name, PROFILES)} Known: {', '.join(PROFILES)}.")
    return PROFILES[name]
