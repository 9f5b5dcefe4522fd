"""The linter: silent on good data, and each fault of actions is found where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pixelvla_core.contract import ActionContract, Gripper, Rotation, Statistics, lint

NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
EPISODES, LENGTH, FPS = 20, 50, 5.0


def good() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    steps = EPISODES * LENGTH
    frame = np.tile(np.arange(LENGTH), EPISODES)
    actions = np.column_stack([rng.normal(0, 0.02, (steps, 6)), frame < 25])
    return {
        "actions_NA": actions.astype(np.float32),
        "episode_N": np.repeat(np.arange(EPISODES), LENGTH),
        "timestamp_N": frame / FPS,
        "state_NS": np.cumsum(actions, 0)[:, :3],
    }


def contract_of(actions: np.ndarray, **changes) -> ActionContract:
    facts = {"names": NAMES, "mask": (True,) * 6 + (False,), "fps": FPS, "camera": "front"}
    facts |= {"gripper": Gripper(index=6, open=1, closed=0), "rotation": Rotation(kind="euler_xyz", start=3)}
    return ActionContract(statistics=Statistics.of(actions), **(facts | changes))


def findings(data: dict[str, np.ndarray], contract: ActionContract | None = None) -> list[tuple[str, str, str]]:
    found = lint(**{"contract": contract or contract_of(data["actions_NA"]), **data})
    return [(finding.level, finding.dimension, finding.text) for finding in found]


def only(data: dict[str, np.ndarray], contract: ActionContract | None = None) -> tuple[str, str, str]:
    found = findings(data, contract)
    assert len(found) == 1, found
    return found[0]


def test_good_data_has_no_findings():
    assert findings(good()) == []


def test_good_data_without_times_episodes_and_state_has_no_findings():
    assert findings({"actions_NA": good()["actions_NA"]}) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_an_error_with_their_place(value):
    contract, data = contract_of(good()["actions_NA"]), good()
    data["actions_NA"][3 * LENGTH + 7, 2] = value
    level, name, text = only(data, contract)
    assert (level, name) == ("error", "dz")
    assert "episode 3, frame 7" in text


def test_a_dimension_that_never_changes():
    data = good()
    data["actions_NA"][:, 4] = 0.5
    assert only(data)[:2] == ("warning", "dpitch")
    assert "always 0.5" in only(data)[2]


def test_a_tiny_span_beside_rare_motion():
    """openpi's issue 814: q01 and q99 nearly equal, rare motion, values of thousands after normalisation."""
    data = good()
    data["actions_NA"][:, 5] *= 1e-5
    data["actions_NA"][::200, 5] = 0.3
    found = findings(data)
    assert [name for _, name, _ in found] == ["dyaw", "dyaw"]
    assert "spans only" in found[0][2]
    assert "more than 5 spans outside" in found[1][2]


def test_an_outlier_is_named_with_its_place():
    data = good()
    data["actions_NA"][2 * LENGTH + 11, 0] = 9.0
    level, name, text = only(data)
    assert (level, name) == ("warning", "dx")
    assert "9 at episode 2, frame 11" in text


def test_statistics_of_other_data():
    data = good()
    foreign = replace(contract_of(data["actions_NA"]), statistics=Statistics.of(data["actions_NA"] * 0.5))
    found = findings(data, foreign)
    assert [name for _, name, _ in found] == list(NAMES[:6])
    assert all("would be clipped" in text for _, _, text in found)


@pytest.mark.parametrize(("value", "side"), [(1.0, "open"), (0.0, "closed")])
def test_a_one_sided_gripper(value, side):
    data = good()
    data["actions_NA"][:, 6] = value
    texts = [text for _, name, text in findings(data) if name == "gripper"]
    assert any(f"is {side} in 100.0%" in text for text in texts)


def test_a_gripper_of_another_convention():
    data = good()
    data["actions_NA"][:, 6] = data["actions_NA"][:, 6] * 2 - 1
    assert "another convention" in only(data)[2]


def test_a_wrong_fps():
    data = good()
    data["timestamp_N"] = data["timestamp_N"] / 4
    level, name, text = only(data)
    assert (level, name) == ("warning", "")
    assert "20 frames per second, the contract 5" in text


def test_actions_that_are_the_next_state_look_absolute():
    data = good()
    path = np.cumsum(np.random.default_rng(1).normal(0, 0.02, (EPISODES * LENGTH, 3)), 0)
    data["state_NS"], data["actions_NA"][:-1, :3] = path, path[1:]
    names = [name for _, name, text in findings(data) if "looks like a position" in text]
    assert names == ["dx", "dy", "dz"]


def test_smooth_values_far_from_zero_look_absolute_even_without_state():
    data = good()
    data["state_NS"] = None
    data["actions_NA"][:, 0] = 0.5 + 0.1 * np.sin(np.arange(EPISODES * LENGTH) / 15)
    assert "looks like a position" in only(data)[2]


def test_a_contract_that_knows_no_fps_is_compared_with_no_time_stamps():
    data = good()
    assert findings(data, replace(contract_of(data["actions_NA"]), fps=0.0)) == []


def test_absolute_actions_are_fine_where_the_contract_says_so():
    data = good()
    data["state_NS"] = None
    data["actions_NA"][:, 0] = 0.5 + 0.1 * np.sin(np.arange(EPISODES * LENGTH) / 15)
    absolute = contract_of(data["actions_NA"], rotation=Rotation(kind="euler_xyz", start=3, delta=False))
    assert findings(data, absolute) == []
