"""Measures of the drawer, in metres."""

from typing import Final

#: x of the drawer's front when shut, and of the middle of the bar one grasps.
FRONT_X: Final = 0.20
HANDLE_X: Final = FRONT_X - 0.036
HANDLE_Z: Final = 0.034
HANDLE_TOP: Final = 0.062
DRAWER_TRAVEL: Final = 0.10
