"""LeRobot's pi0 as a pixelvla backbone, spliced at the result of `embed_prefix`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Pi0Adapter

__all__ = ["Pi0Adapter"]


def __getattr__(name: str) -> Any:
    """Import torch and LeRobot only when the class is used."""
    if name == "Pi0Adapter":
        from .adapter import Pi0Adapter

        return Pi0Adapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
