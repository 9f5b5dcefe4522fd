"""The physics of one scene, written as MuJoCo's MjSpec.

Frames: x forward (away from the camera), y left, z up; the table top is z = 0. Names in the model that the rest of
the package uses: joints ``x y z roll pitch yaw finger_left finger_right drawer`` and actuators of the same names,
bodies ``object0 ...``, ``drawer``, ``cabinet``, ``hand``, ``finger_left``, ``finger_right``, camera ``front``.
"""

from __future__ import annotations

import math

import numpy as np

from .furniture import DRAWER_TRAVEL, FRONT_X, HANDLE_X
from .objects import COLOURS, Part
from .physics import mujoco
from .scene import Item, Look, Scene
from .spec import CAMERA, FINGER_TRAVEL, WORKSPACE_HIGH, WORKSPACE_LOW
from .textures import SIZE, texture
from .view import FOVY, camera_frame

TIMESTEP = 0.005
_GEOM = mujoco.mjtGeom
_KINDS = {
    "box": _GEOM.mjGEOM_BOX,
    "cylinder": _GEOM.mjGEOM_CYLINDER,
    "sphere": _GEOM.mjGEOM_SPHERE,
    "capsule": _GEOM.mjGEOM_CAPSULE,
    "mesh": _GEOM.mjGEOM_MESH,
}
#: Geom groups: the renderer shows 0..2, so collision stand-ins in group 3 are felt but not seen.
_HIDDEN_GROUP = 3
_CHARCOAL, _WHITE, _STEEL = (0.13, 0.13, 0.15, 1), (0.95, 0.95, 0.95, 1), (0.32, 0.33, 0.36, 1)
_WOOD, _DARK_WOOD, _LASER = (0.55, 0.40, 0.27, 1), (0.40, 0.28, 0.18, 1), (1.0, 0.1, 0.7, 0.9)


def build(scene: Scene) -> mujoco.MjModel:
    """Compile the model of a scene; a few milliseconds."""
    spec = mujoco.MjSpec()
    _options(spec)
    _look(spec, scene.look, scene.seed)
    _cabinet(spec, scene.cabinet_y)
    _gripper(spec)
    for index, item in enumerate(scene.items):
        _object(spec, index, item)
    return spec.compile()


def _options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.option.iterations = 30
    spec.visual.quality.offsamples = 4
    spec.visual.quality.numslices, spec.visual.quality.numstacks, spec.visual.quality.numquads = 16, 8, 1
    spec.visual.quality.shadowsize = 512
    spec.visual.map.znear, spec.visual.map.shadowclip = 0.05, 0.9
    spec.stat.extent = 0.7
    spec.stat.center = (0.0, 0.0, 0.0)


def _look(spec: mujoco.MjSpec, look: Look, seed: int) -> None:
    spec.visual.headlight.ambient = (look.ambient,) * 3
    spec.visual.headlight.diffuse = (0.30, 0.30, 0.30)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    toward = np.array(look.light_direction) / np.linalg.norm(look.light_direction)
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        # The shadow map is centred on the ray from here: off the table's middle, its far side would be speckled.
        pos=np.array([0.03, 0.0, 0.0]) - 2 * toward,
        dir=toward,
        diffuse=look.light_colour,
        specular=(0.1, 0.1, 0.1),
        castshadow=True,
    )
    _camera(spec, look.camera_offset)
    _material(spec, "table", look.table, look.table_colour, seed)
    _material(spec, "floor", look.floor, look.floor_colour, seed + 1)
    _sheet(spec, "table", (0.27, 0.30), (0.03, 0.0, 0.0), felt=True)
    _sheet(spec, "floor", (1.2, 1.2), (0.3, 0.0, -0.25), felt=False)


def _sheet(
    spec: mujoco.MjSpec, name: str, half_size: tuple[float, float], pos: tuple[float, float, float], *, felt: bool
) -> None:
    """A flat sheet: a plane to be felt, a slab to be seen, because a plane throws speckled shadows on itself."""
    if felt:
        spec.worldbody.add_geom(type=_GEOM.mjGEOM_PLANE, size=(*half_size, 1), pos=pos, group=_HIDDEN_GROUP)
    x, y, z = pos
    spec.worldbody.add_geom(
        name=name,
        type=_GEOM.mjGEOM_BOX,
        size=(*half_size, 0.02),
        pos=(x, y, z - 0.02),
        material=name,
        contype=0,
        conaffinity=0,
    )


def _camera(spec: mujoco.MjSpec, offset: tuple[float, float, float]) -> None:
    position, right, up = camera_frame(offset)
    camera = spec.worldbody.add_camera(name=CAMERA, pos=position, fovy=FOVY)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = np.concatenate([right, up])


def _material(spec: mujoco.MjSpec, name: str, pattern: str, colour: tuple[float, float, float], seed: int) -> None:
    material = spec.add_material(name=name, specular=0.0, shininess=0.0)
    # What is not quite opaque is left out of the shadow map, where the distant floor would only speckle itself.
    alpha = 0.97 if name == "floor" else 1.0
    if pattern == "plain":
        material.rgba = (*colour, alpha)
        return
    material.rgba = (1, 1, 1, alpha)
    picture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=SIZE, height=SIZE, nchannel=3)
    picture.data = texture(pattern, colour, seed).tobytes()
    textures = [""] * mujoco.mjtTextureRole.mjNTEXROLE
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    material.textures = textures
    material.texrepeat = (2, 2)


def _cabinet(spec: mujoco.MjSpec, y: float) -> None:
    """A low chest with one drawer; its bar stands upright, so that the fingers close on it from left and right."""
    cabinet = spec.worldbody.add_body(name="cabinet", pos=(FRONT_X, y, 0))
    cabinet.add_geom(type=_KINDS["box"], size=(0.05, 0.085, 0.035), pos=(0.062, 0, 0.035), rgba=_WOOD)
    drawer = spec.worldbody.add_body(name="drawer", pos=(FRONT_X, y, 0))
    drawer.add_joint(
        name="drawer",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(-1, 0, 0),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        range=(0, DRAWER_TRAVEL),
        damping=[8.0, 0, 0],
        frictionloss=0.5,
        armature=0.3,
    )
    drawer.add_geom(type=_KINDS["box"], size=(0.006, 0.078, 0.028), pos=(0.005, 0, 0.032), rgba=_DARK_WOOD, mass=0.2)
    for pos, size in (
        ((0.058, 0, 0.012), (0.048, 0.066, 0.004)),
        ((0.058, 0.068, 0.026), (0.048, 0.004, 0.018)),
        ((0.058, -0.068, 0.026), (0.048, 0.004, 0.018)),
    ):
        drawer.add_geom(type=_KINDS["box"], size=size, pos=pos, rgba=_WHITE, mass=0.02, contype=0, conaffinity=0)
    bar = HANDLE_X - FRONT_X
    drawer.add_geom(
        type=_KINDS["box"],
        size=(0.009, 0.009, 0.024),
        pos=(bar, 0, 0.038),
        rgba=_STEEL,
        mass=0.05,
        friction=(1.5, 0.01, 0.001),
    )
    drawer.add_geom(type=_KINDS["box"], size=(0.016, 0.005, 0.006), pos=(bar / 2, 0, 0.036), rgba=_STEEL, mass=0.02)
    spec.add_exclude(bodyname1="cabinet", bodyname2="drawer")


def _gripper(spec: mujoco.MjSpec) -> None:
    """A parallel-jaw gripper without an arm: three slides, three hinges through the tool point, two fingers."""
    carriage = spec.worldbody.add_body(name="carriage", gravcomp=1)
    for i, name in enumerate("xyz"):
        _joint(spec, carriage, name, _axis(i), (WORKSPACE_LOW[i], WORKSPACE_HIGH[i]), armature=1.0, gain=3000, force=80)
    carriage.add_geom(
        type=_KINDS["cylinder"],
        size=(0.0014, 0.15),
        pos=(0, 0, -0.09),
        rgba=_LASER,
        mass=0.01,
        contype=0,
        conaffinity=0,
    )
    hand = carriage.add_body(name="hand", gravcomp=1)
    # Turned about z, then about the new y, then about the new x: "xyz" Euler angles about fixed axes.
    for i, name in ((5, "yaw"), (4, "pitch"), (3, "roll")):
        limits = (WORKSPACE_LOW[i], WORKSPACE_HIGH[i])
        _joint(spec, hand, name, _axis(i - 3), limits, armature=0.02, gain=60, force=8)
    hand.add_geom(type=_KINDS["box"], size=(0.018, 0.058, 0.012), pos=(0, 0, 0.094), rgba=_CHARCOAL, mass=0.2)
    hand.add_geom(type=_KINDS["cylinder"], size=(0.016, 0.03), pos=(0, 0, 0.132), rgba=_CHARCOAL, mass=0.1)
    for name, side in (("finger_left", 1.0), ("finger_right", -1.0)):
        _finger(spec, hand, name, side)


def _finger(spec: mujoco.MjSpec, hand: mujoco.MjsBody, name: str, side: float) -> None:
    finger = hand.add_body(name=name, gravcomp=1)
    _joint(spec, finger, name, (0, side, 0), (0.0, FINGER_TRAVEL), armature=0.1, gain=500, force=12)
    finger.add_geom(
        type=_KINDS["box"],
        size=(0.011, 0.0045, 0.044),
        pos=(0, side * 0.0045, 0.040),
        rgba=_WHITE,
        mass=0.03,
        friction=(2.0, 0.05, 0.001),
        condim=4,
        priority=1,
    )


def _axis(index: int) -> tuple[float, float, float]:
    return float(index == 0), float(index == 1), float(index == 2)


def _joint(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    axis: tuple[float, float, float],
    limits: tuple[float, float],
    *,
    armature: float,
    gain: float,
    force: float,
) -> None:
    """A joint with a critically damped position servo of bounded force."""
    hinge = name in ("roll", "pitch", "yaw")
    kind = mujoco.mjtJoint.mjJNT_HINGE if hinge else mujoco.mjtJoint.mjJNT_SLIDE
    limited = mujoco.mjtLimited.mjLIMITED_TRUE
    margin = 0.02 if not name.startswith("finger") else 0.0
    span = tuple(math.degrees(v) if hinge else v for v in (limits[0] - margin, limits[1] + margin))
    body.add_joint(name=name, type=kind, axis=axis, armature=armature, limited=limited, range=span)
    servo = spec.add_actuator(
        name=name,
        target=name,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrllimited=limited,
        ctrlrange=limits,
        forcelimited=limited,
        forcerange=(-force, force),
    )
    servo.set_to_position(kp=gain, kv=2 * math.sqrt(gain * armature))


def _object(spec: mujoco.MjSpec, index: int, item: Item) -> None:
    shape = item.shape
    half = item.yaw / 2
    body = spec.worldbody.add_body(
        name=f"object{index}", pos=(item.x, item.y, shape.half_height), quat=(math.cos(half), 0, 0, math.sin(half))
    )
    body.add_freejoint(name=f"object{index}")
    rgba = (*COLOURS[item.colour], 1)
    for number, part in enumerate(shape.visual):
        _part(spec, body, part, f"object{index}_{number}", rgba, felt=not shape.collision, seen=True)
    for part in shape.collision:
        _part(spec, body, part, "", rgba, felt=True, seen=False)


def _part(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, part: Part, name: str, rgba: tuple[float, ...], *, felt: bool, seen: bool
) -> None:
    geom = body.add_geom(type=_KINDS[part.kind], pos=part.pos, quat=part.quat, rgba=rgba)
    if part.mesh is not None:
        vertices, faces = part.mesh
        spec.add_mesh(
            name=name,
            uservert=vertices.ravel(),
            userface=faces.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        geom.meshname = name
    else:
        geom.size = (*part.size, *(0.0,) * (3 - len(part.size)))
    geom.group = 0 if seen else _HIDDEN_GROUP
    geom.mass = 0.05 if felt else 0.0
    geom.contype = geom.conaffinity = int(felt)
    geom.condim, geom.friction = 6, (1.0, 0.02, 0.002)
