"""Options of core's own parts of the pipeline. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalConfig:
    """The runner ``local`` does one task after the other in this process; it has no options."""
