"""Pictures and exact instance masks of a scene, drawn off screen.

One OpenGL context serves the whole process; each model uploads its own meshes and textures to it. `mujoco.Renderer`
makes a context per model, which costs more than the picture when a model lives for one episode.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from pixelvla_core.api import UserError

from .physics import GLContext, mujoco
from .spec import CAMERA

_contexts: dict[int, GLContext] = {}


def _make_current() -> None:
    """Make this process's OpenGL context current; a forked child makes its own."""
    process = os.getpid()
    if process not in _contexts:
        try:
            _contexts[process] = GLContext(64, 64)
        except Exception as error:  # each backend of MuJoCo raises something else
            raise _no_graphics(error) from error
    _contexts[process].make_current()


def _no_graphics(error: Exception) -> UserError:
    return UserError(
        f"No picture can be drawn: MuJoCo found no OpenGL with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({error}). "
        "Without a GPU's driver Mesa is enough: on Debian install libegl1 and libgl1-mesa-dri. If mujoco is imported "
        "before pixelvla_tabletop, set MUJOCO_GL=egl in the environment."
    )


class FrontRenderer:
    """Draws the camera ``front`` of one model at one square size.

    Args:
        model: the compiled scene.
        size: pixels per side.
    """

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        _make_current()
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        try:
            self._gl = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except mujoco.FatalError as error:
            raise _no_graphics(error) from error
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(CAMERA).id
        self._pixels = np.empty((size, size, 3), np.uint8)

    def image(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """Return the picture, ``uint8[size, size, 3]``, top row first."""
        return self._draw(data).copy()

    def geoms(self, data: mujoco.MjData) -> NDArray[np.int32]:
        """Return the geom seen at each pixel, ``int32[size, size]``, -1 where there is none."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        pixels = self._draw(data).astype(np.int32)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        codes = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        table = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = geom.objid
        return table[codes]

    def close(self) -> None:
        """Free what the model holds on the graphics side."""
        _make_current()
        self._gl.free()

    def _draw(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        _make_current()
        # Another model's renderer may have drawn last, into a buffer of its own.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._gl)
        category = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, category, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._gl)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._gl)
        return self._pixels[::-1]
