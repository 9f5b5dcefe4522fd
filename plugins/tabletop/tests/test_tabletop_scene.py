"""Scenes are plain data: what they may contain, in which split, and where."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelvla_tabletop import spec
from pixelvla_tabletop.language import TEMPLATES
from pixelvla_tabletop.meshes import extrude, heart_outline, revolve, ring_profile, star_outline
from pixelvla_tabletop.objects import HELD_OUT_PAIRS, HELD_OUT_SHAPES, SHAPES, TRAIN_PAIRS
from pixelvla_tabletop.scene import NEAR_START, SPACING, sample_scene
from pixelvla_tabletop.view import camera_frame, hand_hides

HELD_OUT_NOUNS = {shape.noun for shape in HELD_OUT_SHAPES}
seeds = st.integers(0, 2**31 - 1)
tasks = st.sampled_from(spec.TASKS)
cells = st.one_of(
    st.tuples(st.sampled_from(spec.SPLITS[:3]), st.none()), st.tuples(st.just("variants"), st.sampled_from(spec.AXES))
)


@given(task=tasks, cell=cells, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_objects_leave_room_for_the_fingers_and_are_all_different(task, cell, seed):
    scene = sample_scene(task, *cell, seed)
    for a, b in itertools.combinations(scene.items, 2):
        assert abs(a.x - b.x) > SPACING[0] or abs(a.y - b.y) > SPACING[1]
        assert (a.colour, a.noun) != (b.colour, b.noun)
    low, high = np.array(spec.WORKSPACE_LOW), np.array(spec.WORKSPACE_HIGH)
    assert (low <= scene.start).all()
    assert (high >= scene.start).all()


@given(task=tasks, cell=cells, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_the_instruction_names_what_the_task_is_about(task, cell, seed):
    scene = sample_scene(task, *cell, seed)
    assert scene.target_phrase in scene.instruction
    if task == "move_near":
        target, reference = scene.items[scene.target], scene.items[scene.reference]
        assert scene.reference_phrase in scene.instruction
        assert (reference.colour, reference.noun) in TRAIN_PAIRS
        assert np.hypot(target.x - reference.x, target.y - reference.y) > NEAR_START


@given(task=tasks, split=st.sampled_from(["train", "visual_matching"]), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_training_shows_nothing_that_is_held_out(task, split, seed):
    for item in sample_scene(task, split, None, seed).items:
        assert item.noun not in HELD_OUT_NOUNS
        assert (item.colour, item.noun) not in HELD_OUT_PAIRS


@given(task=st.sampled_from(spec.OBJECT_TASKS), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_the_target_of_unseen_objects_is_held_out(task, seed):
    scene = sample_scene(task, "unseen_objects", None, seed)
    target = scene.items[scene.target]
    assert scene.target_kind == ("noun" if target.noun in HELD_OUT_NOUNS else "pair")
    assert target.noun in HELD_OUT_NOUNS or (target.colour, target.noun) in HELD_OUT_PAIRS


def test_held_out_pairs_have_known_colours_and_known_nouns():
    assert {colour for colour, _ in HELD_OUT_PAIRS} <= {colour for colour, _ in TRAIN_PAIRS}
    assert {noun for _, noun in HELD_OUT_PAIRS} <= {noun for _, noun in TRAIN_PAIRS}
    assert not HELD_OUT_PAIRS & set(TRAIN_PAIRS)


def test_words_are_needed_a_distractor_often_shares_colour_or_shape():
    alike = 0
    for seed in range(100):
        scene = sample_scene("pick", "train", None, seed)
        target = scene.items[scene.target]
        others = [item for item in scene.items if item is not target]
        assert len(others) >= 2
        alike += any(item.colour == target.colour or item.noun == target.noun for item in others)
    assert alike >= 90


def test_no_two_splits_share_an_episode():
    layouts = [
        tuple((item.phrase, item.x, item.y) for item in sample_scene("pick", split, axis, seed).items)
        for split, axis in [*((split, None) for split in spec.SPLITS[:3]), *(("variants", axis) for axis in spec.AXES)]
        for seed in range(20)
    ]
    assert len(set(layouts)) == len(layouts)


def test_variants_cycle_through_the_axes():
    assert [sample_scene("pick", "variants", None, seed).axis for seed in range(5)] == list(spec.AXES)


@pytest.mark.parametrize("axis", spec.AXES)
def test_an_axis_changes_its_own_aspect_only(axis):
    scene, plain = sample_scene("pick", "variants", axis, 3), sample_scene("pick", "train", None, 3)
    changed = {
        "camera": scene.look.camera_offset != plain.look.camera_offset,
        "lighting": abs(scene.look.light_colour[0] - 0.5) > 0.06 or abs(scene.look.light_direction[0]) > 0.13,
        "background": scene.look.floor != plain.look.floor,
        "distractors": len(scene.items) >= 5,
        "table_texture": scene.look.table != plain.look.table,
    }
    assert changed[axis]
    still = {"camera", "background", "table_texture"} - {axis}
    assert not any(changed[other] for other in still)


def test_every_task_has_paraphrases():
    assert set(TEMPLATES) == set(spec.TASKS)
    assert all(len(set(ways)) == len(ways) >= 4 for ways in TEMPLATES.values())


@given(
    x=st.floats(-0.1, 0.1),
    y=st.floats(-0.1, 0.1),
    z=st.floats(0.02, 0.2),
    share=st.floats(0.05, 0.9),
    azimuth=st.floats(-0.3, 0.3),
)
def test_a_palm_on_the_line_of_sight_hides_a_point_and_one_aside_does_not(x, y, z, share, azimuth):
    camera = camera_frame((azimuth, 0.0, 0.0))[0]
    point = np.array([x, y, z])
    between = point + share * (camera - point)
    palm = np.array([0.0, 0.0, 0.094])
    assert hand_hides(point, between - palm, camera, 0.01)
    assert not hand_hides(point, between - palm + np.array([0.0, 0.6, 0.0]), camera, 0.01)


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (extrude([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)], 0.5), 2.0),
        (extrude(star_outline(5, 1.0, 0.5), 0.5), 5 * np.sin(np.pi / 5) * 0.5),
        (extrude(heart_outline(1.0), 0.5), None),
        (revolve([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], 200), np.pi / 3),
        (revolve(ring_profile(2.0, 0.5, 60), 200), 2 * np.pi**2 * 2.0 * 0.25),
    ],
)
def test_meshes_are_closed_and_face_outwards(mesh, volume):
    vertices, faces = mesh
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    # Corners that coincide on the axis of a body of revolution count as one.
    _, merged = np.unique(np.round(vertices, 5), axis=0, return_inverse=True)
    edges = {tuple(edge) for edge in merged.ravel()[edges] if edge[0] != edge[1]}
    assert all((b, a) in edges for a, b in edges)
    a, b, c = (vertices[faces[:, i]].astype(float) for i in range(3))
    enclosed = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert enclosed > 0
    if volume is not None:
        assert enclosed == pytest.approx(volume, rel=0.01)


def test_every_noun_is_one_word_and_known_once():
    assert all(noun.isalpha() and noun == shape.noun for noun, shape in SHAPES.items())
    assert len(SHAPES) == 12


def test_listing_the_part_imports_nothing_heavy():
    code = (
        "import sys, pixelvla_tabletop.plugin as p, pixelvla_tabletop.spec;"
        "p.pixelvla_environments()[0].load_config();"
        "print([m for m in ('mujoco', 'gymnasium', 'numpy', 'torch', 'lerobot') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
