"""pixelvla in LeRobot: importing this registers a policy and an environment, and LeRobot imports it by name."""

from __future__ import annotations

from .configuration_pixelvla import PixelVLAConfig
from .environment import PixelVLAEnvConfig

__all__ = ["PixelVLAConfig", "PixelVLAEnvConfig"]
