"""MuJoCo, imported in one place, because what is wrong with MUJOCO_GL shows when it is first imported."""

import os

from pixelvla_core.api import UserError

try:
    import mujoco as mujoco
    from mujoco.gl_context import GLContext as GLContext
except ModuleNotFoundError:
    raise
except Exception as error:  # a name that MuJoCo does not know, or a library that misses; each raises something else
    raise UserError(
        f"MuJoCo cannot be loaded with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error}. Unset MUJOCO_GL, or set "
        "it to egl, osmesa or glfw, whichever this machine has; for egl on Debian install libegl1 and libgl1-mesa-dri."
    ) from error
