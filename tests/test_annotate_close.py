"""When a gripper first closes: signs, changes, flickers, and data that contradict what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.annotate.close import GripperSignal, first_close, resolve_gripper
from pixelvla_core.annotate.profiles import PROFILES, Profile, profile_of
from pixelvla_core.errors import DataError

ACTION = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
FINGERS = ("x", "finger_left", "finger_right")
closings = st.lists(st.booleans(), min_size=1, max_size=40).map(np.array)


def _actions(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full((len(values), 6), 0.3), np.asarray(values, float)[:, None]], 1)


def _signal(profile: Profile) -> GripperSignal:
    return GripperSignal(6, profile, "")


def _commands(closed: np.ndarray, profile: Profile) -> np.ndarray:
    return np.where(closed, profile.closed, profile.open)


def _episodes(count: int = 30, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Whether the gripper is told to be closed, and how wide its fingers then are, which takes some frames."""
    rng = np.random.default_rng(seed)
    told, wide = [], []
    for _ in range(count):
        closed = np.repeat([0, 1, 0, 1], rng.integers(6, 15, 4)).astype(bool)
        aim, width, seen = np.where(closed, rng.uniform(0.0, 0.02), 0.04), 0.04, []
        for goal in aim:
            seen.append(width)
            width += 0.4 * (goal - width)
        told.append(closed)
        wide.append(np.array(seen))
    return told, wide


def _states(wide: list[np.ndarray]) -> list[np.ndarray]:
    return [np.stack([np.sin(np.arange(len(each))), each, -each], 1) for each in wide]


def _changes(closed: np.ndarray) -> np.ndarray:
    return np.diff(closed.astype(float), prepend=float(closed[0]))


@pytest.mark.parametrize(
    ("closed", "frame"),
    [
        ([0, 0, 1, 1], 2),
        ([1, 1, 0, 0, 1, 1], 4),  # starts closed
        ([0, 1, 0, 0, 1, 1], 4),  # closes for one frame
        ([1, 1, 0, 1, 1, 1], None),  # opens for one frame
        ([1, 1, 0, 1, 1, 0, 0, 1, 1], 7),
        ([0, 0, 0, 1], 3),
        ([0, 0, 0], None),
        ([1, 1, 1], None),
        ([1], None),
        ([1, 1, 0, 0], None),
    ],
)
@pytest.mark.parametrize("profile", [Profile(1.0, 0.0), Profile(-1.0, 1.0), Profile(100.0, 20.0)])
def test_the_first_transition_from_open_to_closed_counts(
    closed: list[int], frame: int | None, profile: Profile
) -> None:
    assert first_close(_signal(profile), _actions(_commands(np.array(closed), profile))) == frame


@given(closings)
def test_the_sign_does_not_matter_if_it_is_known(closed: np.ndarray) -> None:
    found = {
        first_close(_signal(each), _actions(_commands(closed, each))) for each in PROFILES.values() if not each.delta
    }
    assert len(found) == 1


@given(closings)
def test_changes_say_the_same_as_the_levels_they_lead_to(closed: np.ndarray) -> None:
    absolute = first_close(_signal(PROFILES["bridge"]), _actions(_commands(closed, PROFILES["bridge"])))
    assert first_close(_signal(PROFILES["fractal_delta"]), _actions(_changes(closed))) == absolute


@given(closings, st.floats(-0.09, 0.09))
def test_small_changes_are_noise(closed: np.ndarray, noise: float) -> None:
    signal, changes = _signal(PROFILES["fractal_delta"]), _changes(closed)
    assert first_close(signal, _actions(np.where(changes == 0, noise, changes))) == first_close(
        signal, _actions(changes)
    )


@pytest.mark.parametrize(
    ("changes", "frame"),
    [
        ([1, 0, 0], 0),  # an open gripper is told to close at once
        ([-1, 0, 1, 0], 2),
        ([0, 1, 1, 1], 1),  # told again and again
        ([0, 0.2, 0.2, 0.2, 0], 3),  # half closed
        ([0, 1, -1, 0, 1, 0], 4),
        ([0, 0, 0], None),
        ([0, -1, 0], None),
    ],
)
def test_changes_add_up(changes: list[float], frame: int | None) -> None:
    assert first_close(_signal(PROFILES["fractal_delta"]), _actions(np.array(changes))) == frame


@given(closings)
def test_a_closing_frame_is_one_that_is_told_to_close(closed: np.ndarray) -> None:
    frame = first_close(_signal(PROFILES["libero"]), _actions(_commands(closed, PROFILES["libero"])))
    if frame is not None:
        assert closed[frame]
        assert not closed[frame - 1]
        assert closed[frame : frame + 2].all()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["1 closes", "0 closes", "-1 closes", "changes", "changes, turned"]), st.integers(0, 5))
def test_the_meaning_is_inferred_from_fingers(kind: str, seed: int) -> None:
    told, wide = _episodes(seed=seed)
    values = {
        "1 closes": [each.astype(float) for each in told],
        "0 closes": [1.0 - each for each in told],
        "-1 closes": [1.0 - 2 * each for each in told],
        "changes": [_changes(each) for each in told],
        "changes, turned": [-_changes(each) for each in told],
    }[kind]
    actions = [_actions(each) for each in values]
    signal = resolve_gripper(ACTION, FINGERS, actions, _states(wide), None)
    assert signal.profile.delta == kind.startswith("changes")
    assert "closes" in signal.report
    truth = [int(np.flatnonzero(each)[0]) for each in told]
    assert [first_close(signal, each) for each in actions] == truth


@pytest.mark.parametrize("names", [("x", "gripper_0", "gripper_1"), ("x", "finger_a", "finger_b")])
def test_mirrored_fingers_measure_the_opening_whatever_their_names(names: tuple[str, ...]) -> None:
    told, wide = _episodes()
    signal = resolve_gripper(ACTION, names, [_actions(each) for each in told], _states(wide), None)
    assert (signal.profile.closed, signal.profile.open) == (1.0, 0.0)


def test_a_state_that_measures_how_closed_it_is_tells_the_opposite() -> None:
    told, wide = _episodes()
    states = [0.04 - each[:, None] for each in wide]
    signal = resolve_gripper(ACTION, ["gripper_closed"], [_actions(each) for each in told], states, None)
    assert (signal.profile.closed, signal.profile.open) == (1.0, 0.0)


@pytest.mark.parametrize("names", [("x", "y", "z"), ("x", "gripper", "z"), ("x", "finger_joint", "z")])
def test_a_state_that_does_not_tell_is_ambiguous(names: tuple[str, ...]) -> None:
    told, wide = _episodes()
    with pytest.raises(DataError, match="bridge"):
        resolve_gripper(ACTION, names, [_actions(each) for each in told], _states(wide), None)


def test_fingers_that_do_not_follow_are_ambiguous() -> None:
    told, wide = _episodes()
    noise = np.random.default_rng(0)
    states = [noise.uniform(0, 0.04, (len(each), 3)) for each in wide]
    with pytest.raises(DataError, match="cannot be told"):
        resolve_gripper(ACTION, FINGERS, [_actions(each) for each in told], states, None)


def test_two_conventions_in_one_dataset_are_ambiguous() -> None:
    told, wide = _episodes()
    actions = [_actions(each if place % 10 < 7 else ~each) for place, each in enumerate(told)]
    with pytest.raises(DataError, match="70% of the episodes"):
        resolve_gripper(ACTION, FINGERS, actions, _states(wide), None)


def test_a_command_that_never_changes_has_no_meaning() -> None:
    _, wide = _episodes()
    with pytest.raises(DataError, match="always 1"):
        resolve_gripper(ACTION, FINGERS, [_actions(np.ones(len(each))) for each in wide], _states(wide), None)


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_is_refused_where_the_opening_moves_the_other_way(name: str) -> None:
    told, wide = _episodes()
    profile = PROFILES[name]
    right = [_changes(each) if profile.delta else _commands(each, profile) for each in told]
    wrong = [-each if profile.delta else profile.open + profile.closed - each for each in right]
    signal = resolve_gripper(ACTION, FINGERS, [_actions(each) for each in right], _states(wide), name)
    assert signal.profile == profile
    with pytest.raises(DataError, match="moves the other way"):
        resolve_gripper(ACTION, FINGERS, [_actions(each) for each in wrong], _states(wide), name)


@pytest.mark.parametrize(("name", "sign"), [("bridge", 1), ("fractal", -1), ("fractal_delta", -1)])
def test_a_named_dataset_says_what_its_plain_gripper_state_measures(name: str, sign: int) -> None:
    told, wide = _episodes()
    profile = PROFILES[name]
    actions = [_actions(_changes(each) if profile.delta else _commands(each, profile)) for each in told]
    right, wrong = ([0.02 + way * (each[:, None] - 0.02) for each in wide] for way in (sign, -sign))
    assert resolve_gripper(ACTION, ["gripper"], actions, right, name).profile == profile
    with pytest.raises(DataError, match="moves the other way"):
        resolve_gripper(ACTION, ["gripper"], actions, wrong, name)


@pytest.mark.parametrize(
    ("name", "values"), [("libero", "levels"), ("fractal_delta", "levels"), ("fractal", "changes")]
)
def test_a_profile_is_refused_where_the_values_are_others(name: str, values: str) -> None:
    told, _ = _episodes()
    actions = [_actions(1.0 - each if values == "levels" else _changes(each)) for each in told]
    with pytest.raises(DataError, match="tabletop" if values == "levels" else "fractal_delta"):
        resolve_gripper(ACTION, (), actions, None, name)


def test_a_profile_needs_no_state() -> None:
    told, _ = _episodes()
    signal = resolve_gripper(ACTION, (), [_actions(1.0 - each) for each in told], None, "bridge")
    assert "no opening" in signal.report


def test_the_values_themselves_can_be_said() -> None:
    assert profile_of("open=100,closed=0") == Profile(open=100.0, closed=0.0)
    assert profile_of("delta,open=-0.5,closed=0.5") == Profile(open=-0.5, closed=0.5, delta=True)
    for wrong in ("open=1,closed=1", "delta,open=0,closed=1"):
        with pytest.raises(DataError, match="cannot be"):
            profile_of(wrong)
    with pytest.raises(DataError, match="Did you mean 'fractal'"):
        profile_of("fractl")


def test_without_a_command_the_measured_opening_tells() -> None:
    told, wide = _episodes()
    actions, states = [_actions(each)[:, :6] for each in told], _states(wide)
    signal = resolve_gripper(ACTION[:6], FINGERS, actions, states, None)
    assert signal.index is None
    found = [first_close(signal, *pair) for pair in zip(actions, states, strict=True)]
    # The fingers begin to move on the frame after the command.
    assert found == [int(np.flatnonzero(each)[0]) + 1 for each in told]


def test_a_flicker_of_the_measured_opening_does_not_count() -> None:
    told, wide = _episodes()
    signal = resolve_gripper(ACTION[:6], FINGERS, [_actions(each)[:, :6] for each in told], _states(wide), None)
    opening = np.array([0.04, 0.04, 0.0, 0.04, 0.04, 0.02, 0.0, 0.0])
    assert first_close(signal, np.zeros((8, 6)), _states([opening])[0]) == 5


def test_an_action_with_two_grippers_is_refused() -> None:
    with pytest.raises(DataError, match="expected one"):
        resolve_gripper(("left_gripper", "right_gripper"), (), [np.zeros((4, 2))], None, "bridge")


def test_inference_is_the_same_each_time() -> None:
    told, wide = _episodes()
    actions = [_actions(each) for each in told]
    assert resolve_gripper(ACTION, FINGERS, actions, _states(wide), None) == resolve_gripper(
        ACTION, FINGERS, actions, _states(wide), None
    )
