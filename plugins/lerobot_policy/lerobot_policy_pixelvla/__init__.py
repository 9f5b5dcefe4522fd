"""pixelvla as a policy of LeRobot. Importing this registers its config; LeRobot imports every `lerobot_policy_*`."""

from __future__ import annotations

from .configuration_pixelvla import PixelVLAConfig

__all__ = ["PixelVLAConfig"]
