"""Facts about the tabletop as plain data: what a policy or a dataset must know, without importing MuJoCo or torch."""

from __future__ import annotations

from typing import Final

FPS: Final = 5
IMAGE_SIZE: Final = 224
MAX_STEPS: Final = 60
CAMERA: Final = "front"
IMAGE_ORIENTATION: Final = "upright"

ACTION_NAMES: Final = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
#: Deltas beyond these are clipped: three in metres, three in radians, and the gripper's level in [0, 1].
ACTION_LOW: Final = (-0.04, -0.04, -0.04, -0.3, -0.3, -0.3, 0.0)
ACTION_HIGH: Final = (0.04, 0.04, 0.04, 0.3, 0.3, 0.3, 1.0)
GRIPPER_OPEN: Final = 1.0
GRIPPER_CLOSED: Final = 0.0
ROTATION: Final = "euler_xyz_delta"

STATE_NAMES: Final = ("x", "y", "z", "roll", "pitch", "yaw", "finger_left", "finger_right")
#: Limits of the tool point (between the finger tips): x away from the camera, y left, z up from the table, angles.
WORKSPACE_LOW: Final = (-0.22, -0.24, 0.006, -0.4, -0.4, -1.0)
WORKSPACE_HIGH: Final = (0.24, 0.24, 0.26, 0.4, 0.4, 1.0)
#: Travel of each finger in metres; fully open the pads are twice this apart.
FINGER_TRAVEL: Final = 0.042

TASKS: Final = ("pick", "move_near", "open_drawer", "close_drawer")
SPLITS: Final = ("train", "visual_matching", "unseen_objects", "variants")
AXES: Final = ("camera", "lighting", "background", "distractors", "table_texture")
#: Tasks whose target is an object; only they have a held-out version for `unseen_objects`.
OBJECT_TASKS: Final = ("pick", "move_near")
