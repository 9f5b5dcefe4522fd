"""A gripper over a table with many objects and a drawer: environment, scripted expert and demonstrations.

`import pixelvla_tabletop` registers ``pixelvla/Tabletop-v0`` with Gymnasium. MuJoCo reads MUJOCO_GL when it is first imported, so
the default is set here, before any module of this package imports it.
"""

import os

os.environ.setdefault("MUJOCO_GL", "egl")
