"""The action contract: its arithmetic against OpenVLA's own numbers, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelvla_core.contract import ActionContract, Gripper, Rotation, Statistics, infer_contract
from pixelvla_core.contract.begin import begin_contract
from pixelvla_core.contract.contract import CONVENTIONS
from pixelvla_core.errors import ContractError
from pixelvla_core.recipe.schema import CHANGES

# bridge_orig of OpenVLA's dataset_statistics.json, rounded, and what OpenVLA's own predict_action computed with it from
# two rows of action tokens.
BRIDGE = {
    "mean": [0.0002, 0.0001, -0.0001, -0.0002, -0.0004, 0.0003, 0.5765],
    "std": [0.0098, 0.0137, 0.0127, 0.0284, 0.0306, 0.0769, 0.4973],
    "max": [0.4112, 0.2516, 0.1769, 3.1419, 1.8874, 3.142, 1.0],
    "min": [-0.4007, -0.1397, -0.2256, -3.142, -2.2415, -3.142, 0.0],
    "q01": [-0.0287, -0.0418, -0.0261, -0.0809, -0.0929, -0.2072, 0.0],
    "q99": [0.0283, 0.0409, 0.0402, 0.0819, 0.0779, 0.2038, 1.0],
    "mask": [True, True, True, True, True, True, False],
}
TOKENS = [[31933, 31856, 31767, 31889, 31878, 31754, 31940], [31767] * 7]
PREDICTED = [
    [
        -0.013835294117647062,
        0.004739019607843141,
        0.03434999999999999,
        -0.010353333333333326,
        -0.011518823529411762,
        0.18848823529411768,
        -0.5333333333333333,
    ],
    [
        0.02327058823529411,
        0.03360294117647059,
        0.03434999999999999,
        0.06753529411764705,
        0.0628294117647059,
        0.16753529411764706,
        0.8235294117647058,
    ],
]
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def contract(**changes) -> ActionContract:
    facts = {
        "names": NAMES,
        "fps": 5.0,
        "camera": "front",
        "gripper": Gripper(index=6, open=1.0, closed=0.0),
        "rotation": Rotation(kind="euler_xyz", start=3),
    }
    return ActionContract.from_norm_stats({"bridge_orig": {"action": BRIDGE}}, **(facts | changes))


def random_actions(seed: int, steps: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(0, 0.05, (steps, 6)), rng.integers(0, 2, steps)]).astype(np.float32)


def test_unnormalize_gives_openvlas_own_numbers():
    edges = np.linspace(-1, 1, 256)
    normalised = ((edges[:-1] + edges[1:]) / 2)[np.clip(32000 - np.array(TOKENS) - 1, 0, 254)]
    np.testing.assert_allclose(contract().unnormalize(normalised), PREDICTED, rtol=0, atol=1e-15)


def test_normalize_is_openvlas_loader_written_out_value_by_value():
    actions = random_actions(0)
    expected = np.empty_like(actions)
    for step, action in enumerate(actions):
        for index, value in enumerate(action):
            low, high = np.float32(BRIDGE["q01"][index]), np.float32(BRIDGE["q99"][index])
            scaled = min(max(2 * (value - low) / (high - low + np.float32(1e-8)) - 1, -1), 1)
            expected[step, index] = scaled if BRIDGE["mask"][index] else value
    found = contract().normalize(actions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found[:, :6]).max() == 1, "the data reach beyond the quantiles, so something is clipped"


@pytest.mark.parametrize("rule", ["q99", "min_max", "mean_std"])
def test_numpy_and_torch_agree_in_both_directions(rule):
    made = contract(rule=rule)
    actions = random_actions(1).reshape(-1, 10, 7)
    there = made.normalize(torch.from_numpy(actions))
    np.testing.assert_allclose(there.numpy(), made.normalize(actions), atol=1e-6)
    back = made.unnormalize(there)
    assert back.dtype == torch.float32
    np.testing.assert_allclose(back.numpy(), made.unnormalize(made.normalize(actions)), atol=1e-6)


@pytest.mark.parametrize("rule", ["q99", "min_max", "mean_std"])
@given(
    actions=hnp.arrays(np.float64, (20, 3), elements=st.floats(-1e3, 1e3)),
    fractions=hnp.arrays(np.float64, (5, 3), elements=st.floats(0, 1)),
)
@settings(max_examples=60, deadline=None)
def test_what_lies_within_the_bounds_comes_back(rule, actions, fractions):
    statistics = Statistics.of(actions)
    made = ActionContract(
        names=("a", "b", "c"), statistics=statistics, rule=rule, mask=(True, True, False), fps=5, camera="front"
    )
    low, high = made.bounds
    values = low + fractions * (high - low)
    spans = np.maximum(high - low, np.abs(values).max(0))
    np.testing.assert_allclose(made.unnormalize(made.normalize(values)), values, atol=1e-6 + 1e-7 * spans.max())


def test_a_dimension_that_never_changes_is_zero_for_the_model_and_itself_for_the_robot():
    actions = random_actions(2)
    actions[:, 3] = 0.25
    made = replace(contract(), statistics=Statistics.of(actions))
    normalised = made.normalize(actions)
    assert (normalised[:, 3] == 0).all()
    np.testing.assert_allclose(made.unnormalize(normalised)[:, 3], 0.25)


def test_statistics_follow_their_definitions():
    actions = random_actions(3)
    found = Statistics.of(actions)
    ordered = np.sort(actions[:, 0].astype(np.float64))
    place = 0.99 * (len(ordered) - 1)
    below = int(place)
    assert found.q99[0] == pytest.approx(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))
    assert found.mean[0] == pytest.approx(sum(map(float, actions[:, 0])) / len(actions), abs=1e-9)
    assert found.std[0] == pytest.approx(np.sqrt(np.mean((actions[:, 0].astype(float) - found.mean[0]) ** 2)))
    assert (found.min[0], found.max[0]) == (ordered[0], ordered[-1])


def test_json_round_trip():
    made = contract(orientation="rotate180", revision="v3", fingerprint="ab" * 32)
    assert ActionContract.from_json(json.loads(json.dumps(made.to_json()))) == made
    bare = contract(gripper=None, rotation=None, unknown=["gripper", "frame"])
    assert ActionContract.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_json_without_a_list_of_the_unknown_states_everything():
    older = {name: value for name, value in contract().to_json().items() if name != "unknown"}
    assert ActionContract.from_json(older) == contract()


@pytest.mark.parametrize("change", [{"version": 2}, {"extra": 1}])
def test_json_of_another_version_is_refused(change):
    with pytest.raises(ContractError, match="reads version 1"):
        ActionContract.from_json(contract().to_json() | change)


def test_a_contract_fits_itself_with_other_statistics():
    other = replace(contract(), statistics=Statistics.of(random_actions(4)), dataset="mine", fingerprint="f")
    contract().check_compatible(other)
    assert contract().differences(other, mine="a", theirs="b") == {}


def test_what_one_side_does_not_know_is_not_compared():
    bare = contract(names=[f"action_{i}" for i in range(7)], gripper=None, rotation=None, fps=0.0, unknown=CONVENTIONS)
    for one, two in ((bare, contract()), (contract(), bare)):
        one.check_compatible(two)
    assert not any(bare.knows(name) for name in (*CONVENTIONS, "fps"))
    with pytest.raises(ContractError, match="gripper: None in the checkpoint"):
        contract(gripper=None).check_compatible(contract())
    with pytest.raises(ContractError, match="Did you mean 'gripper'"):
        contract(unknown=["griper"])


MOTION = ("x", "y", "z", "roll", "pitch", "yaw")


@pytest.mark.parametrize("form", ["delta_{}", "d_{}", "{}_delta", "{}"])
def test_other_spellings_of_a_change_are_the_same_names(form):
    other = replace(contract(), names=(*(form.format(axis) for axis in MOTION), "Gripper"))
    contract().check_compatible(other)
    other.check_compatible(contract())
    found, said = begin_contract(contract(), other, trained=True)
    assert found.names == other.names
    assert "start_changes" not in said[0]


@pytest.mark.parametrize(
    "change", [{"unknown": ("rotation",)}, {"rotation": Rotation(kind="euler_xyz", start=3, delta=False)}]
)
def test_an_axis_is_no_change_along_it_where_nobody_says_that_actions_are_changes(change):
    one, two = contract(**change), contract(names=(*MOTION, "gripper"), **change)
    for first, second in ((one, two), (two, one)):
        shown = rf"names: \['{first.names[0]}', .* in the start, \['{second.names[0]}', .* in the data"
        with pytest.raises(ContractError, match=shown) as caught:
            begin_contract(first, second, trained=True)
        assert "start_changes=[names]" in str(caught.value)
        assert f"action_names=[{','.join(first.names)}] among its options" in str(caught.value)
    spelled = contract(names=(*(f"delta_{axis}" for axis in MOTION), "gripper"), **change)
    one.check_compatible(spelled)


@pytest.mark.parametrize("names", [(*NAMES[1:], NAMES[0]), ("dy", "dx", *NAMES[2:]), ("ddx", *NAMES[1:])])
def test_other_dimensions_and_another_order_are_other_names(names):
    with pytest.raises(ContractError, match="only their names are not"):
        contract().check_compatible(contract(names=names))


def test_actions_of_other_width_differ_also_where_names_are_unknown():
    six = {name: values[:6] for name, values in BRIDGE.items()}
    bare = ActionContract.from_norm_stats({"a": {"action": six}}, fps=0.0, camera="front", unknown=["names"])
    with pytest.raises(ContractError, match="dimensions: 6 in the checkpoint, 7 in the data"):
        bare.check_compatible(contract())
    named = ActionContract.from_norm_stats({"a": {"action": six}}, fps=0.0, camera="front", names=NAMES[:6])
    with pytest.raises(ContractError, match="names: ") as caught:
        named.check_compatible(contract())
    assert "action_names" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 10.0}, "fps: 5.0 in the checkpoint, 10.0 in the data"),
        ({"camera": "wrist"}, "camera"),
        ({"orientation": "rotate180"}, "orientation: 'upright' in the checkpoint, 'rotate180' in the data"),
        ({"gripper": Gripper(index=6, open=-1.0, closed=1.0)}, "gripper"),
        ({"rotation": Rotation(kind="axis_angle", start=3)}, "rotation"),
        ({"rule": "min_max"}, "rule"),
    ],
)
def test_a_contract_refuses_another_convention(change, words):
    with pytest.raises(ContractError, match="does not fit") as raised:
        contract().check_compatible(replace(contract(), **change))
    assert words in str(raised.value)


def test_actions_of_another_dimension_are_refused():
    with pytest.raises(ContractError, match="Actions have 6 dimensions, but the contract of bridge_orig has 7"):
        contract().normalize(np.zeros((8, 6)))


def test_an_unknown_statistics_key_names_the_nearest():
    stats = {"bridge_orig": {"action": BRIDGE}, "fractal20220817_data": {"action": BRIDGE}}
    with pytest.raises(ContractError, match="Did you mean 'bridge_orig'"):
        ActionContract.from_norm_stats(stats, "bridge_org", fps=5, camera="front")


def test_an_ambiguous_statistics_key_names_all():
    stats = {"bridge_orig": {"action": BRIDGE}, "toto": {"action": BRIDGE}}
    with pytest.raises(ContractError, match="2 datasets: bridge_orig, toto"):
        ActionContract.from_norm_stats(stats, fps=5, camera="front")


def test_a_run_after_training_takes_the_datas_contract_where_its_actions_mean_the_same():
    data = replace(contract(), statistics=Statistics.of(random_actions(4)), dataset="mine")
    assert begin_contract(None, data, trained=True) == (data, [])
    found, said = begin_contract(contract(), data, trained=True)
    assert found == data
    assert said == ["The statistics of actions are now those of mine."]


@pytest.mark.parametrize("trained", [True, False])
def test_a_start_that_means_something_else_is_refused_until_that_is_declared(trained):
    data = replace(contract(), fps=10.0, orientation="rotate180")
    with pytest.raises(
        ContractError, match=r"fps: 5.0 in the start, 10.0 in the data; orientation.*=\[fps,orientation"
    ):
        begin_contract(contract(), data, trained=trained)
    with pytest.raises(ContractError, match=r"data: orientation"):
        begin_contract(contract(), data, trained=trained, changes=["fps"])
    found, said = begin_contract(contract(), data, trained=trained, changes=["fps", "orientation"])
    assert (found.fps, found.orientation) == (10.0, "rotate180")
    assert "fps: 5.0 in the start, 10.0 in the data" in said[0]


def test_another_rule_is_a_change_of_a_trained_start_only():
    data = replace(contract(), rule="min_max")
    with pytest.raises(ContractError, match="rule: 'q99' in the start"):
        begin_contract(contract(), data, trained=True)
    assert begin_contract(contract(), data, trained=False)[0].rule == "q99"


def test_a_wrapped_start_keeps_the_bases_statistics_and_says_what_they_clip():
    base = contract(names=[f"action_{i}" for i in range(7)], gripper=None, unknown=["names", "gripper"])
    data = replace(contract(), statistics=Statistics.of(random_actions(4)), dataset="mine", fingerprint="f")
    found, (said,) = begin_contract(base, data, trained=False)
    assert (found.statistics, found.dataset, found.fingerprint) == (base.statistics, "bridge_orig", "")
    assert (found.names, found.gripper, found.unknown) == (data.names, data.gripper, ())
    assert "The base's statistics of 'bridge_orig' are kept" in said
    assert "farther in dx (-0.0287 to 0.0283, the data" in said
    assert "dyaw" not in said, "its bounds hold the data"
    own, (said,) = begin_contract(base, data, trained=False, changes=["statistics"])
    assert own == data
    assert "now those of mine" in said


def test_a_wrapped_start_of_other_width_is_refused():
    six = {name: values[:6] for name, values in BRIDGE.items()}
    base = ActionContract.from_norm_stats({"a": {"action": six}}, fps=0.0, camera="front", unknown=["names"])
    with pytest.raises(ContractError, match="dimensions: 6 in the start, 7 in the data") as caught:
        begin_contract(base, contract(), trained=False)
    assert "start_changes=" not in str(caught.value)


def test_what_start_changes_may_list_is_what_contracts_compare():
    origin = {"dataset", "revision", "fingerprint", "state", "unknown"}
    assert set(CHANGES) == {field.name for field in fields(ActionContract)} - origin


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "q98"}, "Did you mean 'q99'"),
        ({"orientation": "rotate_180"}, "Did you mean 'rotate180'"),
        ({"names": ("a", "b")}, "differ in dimensions"),
        ({"gripper": Gripper(index=9, open=1, closed=0)}, "dimension 9"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(change, words):
    with pytest.raises(ContractError, match=words):
        contract(**change)


def test_statistics_that_are_not_finite_are_refused():
    with pytest.raises(ContractError, match="must be finite"):
        Statistics.of(np.array([[0.0, np.nan]]))


def test_a_gripper_is_closed_where_its_value_is_nearer_to_closed():
    openvla, libero = Gripper(index=6, open=1, closed=0), Gripper(index=6, open=-1, closed=1)
    values = np.array([-1.0, 0.2, 0.9])
    assert openvla.is_closed(values).tolist() == [True, True, False]
    assert libero.is_closed(values).tolist() == [False, True, True]


@pytest.mark.parametrize("given", ["gripper_open", "gripper_closed"])
def test_half_a_gripper_is_refused(given):
    actions, state = grasps(1.0, 0.0)
    with pytest.raises(ContractError, match=f"{given} is given, but gripper_"):
        infer_contract(actions, names=NAMES, state=state, fps=5, camera="front", **{given: 1.0})


@pytest.mark.parametrize("text", ["euler_xyz_delta", "axis_angle", "quaternion_wxyz", "rot6d_delta"])
def test_rotations_read_and_write_as_text(text):
    assert str(Rotation.parse(text, 3)) == text
    assert Rotation.from_json(Rotation.parse(text, 3).to_json()) == Rotation.parse(text, 3)


def grasps(open_value: float, closed_value: float) -> tuple[np.ndarray, np.ndarray]:
    """Commands, and a measured finger travel that follows them two steps later."""
    shut = (np.arange(400) // 20) % 2 == 1
    actions = random_actions(5, 400)
    actions[:, 6] = np.where(shut, closed_value, open_value)
    width = np.where(np.roll(shut, 2), 0.01, 0.04)
    return actions, np.column_stack([np.zeros(400), width, -width])


@pytest.mark.parametrize(("opened", "closed"), [(1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (1.0, -1.0)])
def test_the_gripper_is_inferred_from_the_measured_opening(opened, closed):
    actions, state = grasps(opened, closed)
    made = infer_contract(
        actions, names=NAMES, state=state, state_names=("x", "finger_left", "finger_right"), fps=5, camera="front"
    )
    assert made.gripper == Gripper(index=6, open=opened, closed=closed)
    assert made.mask == (True,) * 6 + (False,)
    assert made.rotation == Rotation(kind="euler_xyz", start=3, delta=True)


@pytest.mark.parametrize(
    ("state_names", "words"),
    [(("x", "gripper_position", "y"), "Nothing tells which value"), (("finger_width", "y", "z"), "never changes")],
)
def test_a_gripper_that_the_data_do_not_tell_must_be_declared(state_names, words):
    actions, state = grasps(1.0, 0.0)
    facts = {"names": NAMES, "state": state, "state_names": state_names, "fps": 5, "camera": "front"}
    with pytest.raises(ContractError, match=words):
        infer_contract(actions, **facts)
    assert infer_contract(actions, **facts, gripper_open=0.0, gripper_closed=1.0).gripper.open == 0.0


def test_a_gripper_in_metres_must_be_declared_and_is_normalised():
    actions, state = grasps(0.0, 1.0)
    actions[:, 6] *= 255
    facts = {"names": NAMES, "state": state, "state_names": ("x", "finger_l", "finger_r"), "fps": 5, "camera": "front"}
    with pytest.raises(ContractError, match=r"runs from 0 to 255"):
        infer_contract(actions, **facts)
    assert infer_contract(actions, **facts, gripper_open=0, gripper_closed=255).mask[6]


@pytest.mark.parametrize(
    "names", [("x", "y", "z", "roll", "pitch", "yaw", "grip"), tuple(f"action_{i}" for i in range(7))]
)
def test_a_rotation_that_the_names_do_not_tell_must_be_declared(names):
    facts = {"names": names, "fps": 5, "camera": "front"}
    if "grip" in names:
        facts |= {"gripper_open": 1.0, "gripper_closed": 0.0}
    with pytest.raises(ContractError, match="Set rotation"):
        infer_contract(random_actions(6), **facts)
    made = infer_contract(random_actions(6), **facts, rotation="axis_angle_delta")
    assert made.rotation == Rotation(kind="axis_angle", start=3, delta=True)
    assert infer_contract(random_actions(6), **facts, rotation="none").rotation is None


def test_the_document_lists_every_field():
    text = (Path(__file__).parents[1] / "docs" / "action_contract.md").read_text(encoding="utf-8")
    assert [field.name for field in fields(ActionContract) if f"`{field.name}`" not in text] == []


def test_joint_actions_have_no_rotation():
    made = infer_contract(random_actions(7), names=[f"joint_{i}" for i in range(7)], fps=5, camera="front")
    assert (made.rotation, made.gripper, made.mask) == (None, None, (True,) * 7)


def test_the_rule_of_a_bases_own_statistics_is_kept():
    entry = {name: [float(i)] * 7 for i, name in enumerate(("min", "q01", "mean", "std", "q99", "max"))}
    given = {"fps": 5.0, "camera": "front"}
    assert ActionContract.from_norm_stats({"a": {"action": entry}}, **given).rule == "q99"
    assert ActionContract.from_norm_stats({"a": {"action": {**entry, "rule": "mean_std"}}}, **given).rule == "mean_std"
