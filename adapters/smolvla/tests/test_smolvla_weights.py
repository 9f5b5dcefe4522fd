"""Reading checkpoints strictly, and what a user is told about one that does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pixelvla_smolvla.adapter import SmolVLAAdapter, build
from pixelvla_smolvla.config import SmolVLAOptions
from pixelvla_smolvla.weights import vlm_folder
from safetensors.torch import load_file, save_file

from pixelvla_core.api import StateBackbone
from pixelvla_core.contract import Statistics
from pixelvla_core.errors import CheckpointError, UserError


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def load(folder, **options):
    return build(SmolVLAOptions(**options), weights=str(folder))


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_missing_tensor_is_refused(copy):
    rewrite(copy, lambda tensors: tensors.pop("model.state_proj.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing \(model.state_proj.weight\).*No weight was loaded"):
        load(copy)


def test_a_tensor_left_over_is_refused(copy):
    rewrite(copy, lambda tensors: tensors.update({"model.extra": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"1 not expected \(model.extra\)"):
        load(copy)


def test_a_tensor_of_another_shape_is_refused(copy):
    rewrite(copy, lambda tensors: tensors.update({"model.state_proj.bias": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"1 of another shape \(model.state_proj.bias is \(3,\) instead of"):
        load(copy)


def test_another_number_of_layers_is_refused(copy):
    edit(copy, num_vlm_layers=3)
    with pytest.raises(CheckpointError, match=r"missing \(model.vlm_with_expert.vlm.model.text_model.layers.2"):
        load(copy)


def test_statistics_among_the_weights_name_lerobots_migration(copy):
    rewrite(copy, lambda tensors: tensors.update({"normalize_inputs.buffer_observation_state.mean": torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=r"migrate_policy_normalization.py"):
        load(copy)


def test_a_damaged_file_is_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(copy)


def test_pickled_weights_are_never_opened(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights"):
        load(copy)


def test_another_policy_is_refused(copy):
    edit(copy, type="pi0")
    with pytest.raises(CheckpointError, match=r"describes a policy of type 'pi0'.*reads LeRobot's SmolVLA"):
        load(copy)


def test_an_unknown_field_is_refused(copy):
    edit(copy, wings=2)
    with pytest.raises(CheckpointError, match="wings"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compile_model": True}, "compile the wrapped model afterwards"),
        ({"adapt_to_pi_aloha": True}, "convert the data instead"),
        ({"resize_imgs_with_padding": [64, 32]}, "padded to a square"),
        ({"resize_imgs_with_padding": [72, 72]}, "choose a multiple of that"),
    ],
)
def test_what_is_not_offered_is_refused(copy, change, says):
    edit(copy, **change)
    with pytest.raises(UserError, match=says):
        load(copy)


def test_no_folder_and_no_id_is_refused():
    with pytest.raises(CheckpointError, match="no folder and no id"):
        load("/nowhere/at all")


def test_quantisation_is_refused():
    with pytest.raises(UserError, match="cannot be quantised"):
        build(SmolVLAOptions(), weights=None, quantize="8bit")


def test_two_builds_without_weights_are_equal():
    one, two = (build(SmolVLAOptions(), weights=None).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


# --- the SmolVLM's files ------------------------------------------------------------------------------------------


def test_the_smolvlm_is_found_beside_the_weights_by_option_or_by_its_name(copy, folder, tmp_path):
    assert vlm_folder(copy, None, "some/where") == copy / "vlm"
    assert vlm_folder(copy, str(folder / "vlm"), "some/where") == folder / "vlm"
    (copy / "vlm").rename(tmp_path / "elsewhere")
    assert vlm_folder(copy, None, str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_a_checkpoint_without_its_smolvlm_says_where_to_put_it(copy):
    shutil.rmtree(copy / "vlm")
    edit(copy, vlm_model_name="nowhere at all")
    with pytest.raises(CheckpointError, match=r"needs the configuration and the tokenizer.*backbone.options.vlm"):
        load(copy)


def test_a_model_of_another_kind_in_its_place_is_refused(copy):
    edit(copy / "vlm", model_type="llama")
    with pytest.raises(CheckpointError, match="describes a model of type 'llama'; expected a SmolVLM"):
        load(copy)


def test_a_smolvlm_without_its_tokenizer_is_refused(copy):
    for file in copy.glob("vlm/tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"must hold config.json, the tokenizer"):
        load(copy)


# --- cameras and states -------------------------------------------------------------------------------------------


def test_cameras_are_the_checkpoints_own_or_the_datas(folder):
    assert load(folder).spec.cameras == ("front", "wrist")
    assert load(folder, cameras=["a"]).spec.cameras == ("a",)
    with pytest.raises(UserError, match=r"reads 2 cameras \(observation.images.front, observation.images.wrist\)"):
        load(folder, cameras=["a", "b", "c"])
    with pytest.raises(ValueError, match="expected each name once"):
        load(folder, cameras=["a", "a"])


def test_states_are_normalised_as_by_lerobots_preprocessor(folder, lerobot, samples):
    found = load(folder).collate(samples, train=False).inputs
    given = lerobot(folder).batch(samples)
    assert torch.equal(found["state"][:, :7], given["observation.state"])
    assert torch.equal(found["tokens"], given["observation.language.tokens"])
    assert torch.equal(found["token_mask"], given["observation.language.attention_mask"])
    assert not found["state"][:, 7:].any()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "has no state, but SmolVLA reads one"),
        (33, "reads 32 at most"),
        (6, "the statistics by which SmolVLA reads states are of 7: another robot's"),
    ],
)
def test_states_that_do_not_fit_are_refused(folder, samples, state, says):
    value = None if state is None else torch.zeros(state).numpy()
    with pytest.raises(UserError, match=says):
        load(folder).collate([replace(samples[0], state=value)], train=False)


def test_actions_wider_than_the_base_are_refused(folder, samples):
    adapter = load(folder)
    batch = adapter.collate(samples, train=False)
    prefix = adapter.prefix(batch, adapter.features(batch, ()))
    batch = replace(batch, actions_BHA=torch.zeros(3, 5, 40), action_valid_BH=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(UserError, match=r"5 actions with 40 values each.*32 values at most"):
        adapter.native_loss(prefix, batch)


def test_chunks_shorter_than_the_base_are_refused(folder, samples):
    adapter = load(folder)
    batch = adapter.collate(samples, train=False)
    prefix = adapter.prefix(batch, adapter.features(batch, ()))
    with pytest.raises(UserError, match=r"chunks of 4 actions.*Set action.horizon=5"):
        adapter.native_loss(prefix, replace(batch, actions_BHA=torch.zeros(3, 4, 7)))


def test_statistics_of_another_robot_can_be_given_and_states_left_out(folder, samples):
    given = load(folder, state_mean=[1.0] * 7, state_std=[2.0] * 7).collate(samples, train=False).inputs["state"]
    wanted = torch.stack([(torch.from_numpy(sample.state) - 1) / 2 for sample in samples])
    torch.testing.assert_close(given[:, :7], wanted)
    unread = load(folder, state=False)
    assert unread.spec.state_dim is None
    assert not unread.collate([replace(samples[0], state=None)], train=False).inputs["state"].any()


def test_states_without_statistics_are_read_in_their_units_with_a_warning(copy, samples):
    (copy / "policy_preprocessor.json").unlink()
    adapter = load(copy)
    assert adapter.lacks_states
    with pytest.warns(UserWarning, match="No statistics of the robot's state") as said:
        found = [adapter.collate(samples, train=False).inputs["state"] for _ in range(2)]
    assert len(said) == 1
    assert torch.equal(found[0][0, :7], torch.from_numpy(samples[0].state))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_states_that_are_no_finite_numbers_are_refused(folder, samples, value):
    state = np.array([*samples[0].state[:-1], value], np.float32)
    with pytest.raises(UserError, match="expected finite numbers"):
        load(folder).collate([replace(samples[0], state=state)], train=False)


def test_the_datas_statistics_of_states_are_taken_where_there_are_none(copy, folder, samples):
    states = np.random.default_rng(0).normal(3, 2, (20, 6))
    states[:, 2] = 7.0
    statistics = Statistics.of(states)
    known = load(folder)
    assert isinstance(known, StateBackbone)
    assert not known.lacks_states
    assert not load(folder, state=False).lacks_states
    before = known.state
    known.take_states(statistics)
    assert known.state is before

    (copy / "policy_preprocessor.json").unlink()
    adapter = load(copy)
    adapter.take_states(statistics)
    assert (adapter.lacks_states, adapter.spec.state_dim) == (False, 6)
    given = replace(samples[0], state=np.full(6, 5.0, np.float32))
    found = adapter.collate([given], train=False).inputs["state"][0]
    std = [1.0 if index == 2 else value for index, value in enumerate(statistics.std)]
    wanted = (5 - np.array(statistics.mean)) / np.array(std)  # what never changes is centred, not scaled
    np.testing.assert_allclose(found[:6].numpy(), wanted, atol=1e-5)
    assert not found[6:].any()


def test_a_preprocessor_without_its_statistics_is_refused(copy):
    for file in copy.glob("policy_preprocessor_*.safetensors"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"which is not there. Download the rest"):
        load(copy)


def test_statistics_of_actions_make_the_contract(folder):
    entry = load(folder).statistics["lerobot"]["action"]
    assert entry["rule"] == "mean_std"
    assert all(len(entry[name]) == 7 for name in ("mean", "std", "min", "max", "q01", "q99"))


def test_fields_of_lerobots_configuration_can_be_changed(folder):
    assert load(folder, policy={"chunk_size": 8, "n_action_steps": 8}).spec.action.horizon == 8
    with pytest.raises(UserError, match=r"'num_stepz', no field of SmolVLAConfig.*num_steps"):
        load(folder, policy={"num_stepz": 3})
    with pytest.raises(UserError, match="LeRobot refuses the fields"):
        load(folder, policy={"chunk_size": 2})


def test_what_misses_in_another_lerobot_is_listed():
    policy = build(SmolVLAOptions(), weights=None).module
    policy.model.image_end_token = None
    policy.model.sample_time = lambda count: count
    lacks = r"model.sample_time\(bsize\), model.sample_time\(device\), model.image_end_token"
    with pytest.raises(UserError, match=f"lacks {lacks}. Known to work is LeRobot >=0.6,<0.7"):
        SmolVLAAdapter(policy, SmolVLAOptions())


def test_a_base_is_not_saved_over_something_else(folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is left alone"):
        load(folder).save_base(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_long_instruction_is_cut_with_a_warning(folder, samples):
    with pytest.warns(UserWarning, match="longer than 96 tokens and is cut, as in LeRobot"):
        load(folder).collate([replace(samples[0], instruction="go " * 60)], train=False)
