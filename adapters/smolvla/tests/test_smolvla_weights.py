"""Reading checkpoints strictly, and what a user is told about one that does not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from pixelvla_smolvla.adapter import build
from pixelvla_smolvla.config import SmolVLAConfig
from pixelvla_smolvla.weights import vlm_folder
from safetensors.torch import load_file, save_file

from pixelvla_core.errors import CheckpointError, UserError


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def load(folder, **options):
    return build(SmolVLAConfig(**options), weights=str(folder))


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
    with pytest.raises(CheckpointError, match="describes a policy of type 'pi0'.*reads LeRobot's SmolVLA"):
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
        ({"resize_imgs_with_padding": None}, "padded to a square"),
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
        build(SmolVLAConfig(), weights=None, quantize="8bit")


def test_two_builds_without_weights_are_equal():
    one, two = (build(SmolVLAConfig(), weights=None).module.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


# --- the SmolVLM's files ------------------------------------------------------------------------------------------


def test_the_smolvlm_is_found_beside_the_weights_by_option_or_by_its_name(copy, folder, tmp_path):
    assert vlm_folder(copy, "", "some/where") == copy / "vlm"
    assert vlm_folder(copy, str(folder / "vlm"), "some/where") == folder / "vlm"
    (copy / "vlm").rename(tmp_path / "elsewhere")
    assert vlm_folder(copy, "", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_a_checkpoint_without_its_smolvlm_says_where_to_put_it(copy):
    shutil.rmtree(copy / "vlm")
    edit(copy, vlm_model_name="nowhere at all")
    with pytest.raises(CheckpointError, match="needs the configuration and the tokenizer.*option `vlm`"):
        load(copy)


def test_a_model_of_another_kind_in_its_place_is_refused(copy):
    edit(copy / "vlm", model_type="llama")
    with pytest.raises(CheckpointError, match="describes a model of type 'llama'; expected a SmolVLM"):
        load(copy)


def test_a_smolvlm_without_its_tokenizer_is_refused(copy):
    for file in copy.glob("vlm/tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="must hold config.json, the tokenizer"):
        load(copy)


# --- cameras and states -------------------------------------------------------------------------------------------


def test_cameras_are_the_checkpoints_own_or_the_datas(folder):
    assert load(folder).spec.cameras == ("front", "wrist")
    assert load(folder, cameras=["a"]).spec.cameras == ("a",)
    with pytest.raises(UserError, match=r"reads 2 cameras \(observation.images.front, observation.images.wrist\)"):
        load(folder, cameras=["a", "b", "c"])
    with pytest.raises(UserError, match="each once"):
        load(folder, cameras=["a", "a"])


def test_states_are_normalised_as_by_lerobots_preprocessor(folder, lerobot, samples):
    found = load(folder).collate(samples, train=False).inputs
    given = lerobot(folder).batch(samples)
    assert torch.equal(found["state"][:, :7], given["observation.state"])
    assert torch.equal(found["ids"], given["observation.language.tokens"])
    assert torch.equal(found["text_valid"], given["observation.language.attention_mask"])
    assert not found["state"][:, 7:].any()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "SmolVLA reads the robot's state"),
        (33, "reads 32 at most"),
        (6, "statistics beside the weights are for 7"),
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
    with pytest.raises(UserError, match="have 40 values; this SmolVLA takes 32 at most"):
        adapter.native_loss(prefix, batch)
