"""OpenVLA's Prismatic stack: our own modules for the official checkpoint layout, and the adapter that pixelvla uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .openvla import OpenVLA

__all__ = ["OpenVLA"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers only when the class is used."""
    if name == "OpenVLA":
        from .openvla import OpenVLA

        return OpenVLA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
