"""A gripper over a table with many objects and a drawer: environment, scripted expert and demonstrations.

MuJoCo reads MUJOCO_GL when it is first imported, so the default is set here, before any module of this package
imports it: EGL draws without a display, on a GPU or, through Mesa, without one.
"""

import os

os.environ.setdefault("MUJOCO_GL", "egl")
