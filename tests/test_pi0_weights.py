"""Loading pi0: strictly, with LeRobot's rules for names, and with one paragraph for whatever does not fit."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from pixelvla_pi0 import surface
from pixelvla_pi0.adapter import Pi0Adapter, build
from pixelvla_pi0.config import Pi0Options
from pixelvla_pi0.sizes import Sizes
from pixelvla_pi0.weights import EMBEDDING, HEAD, model_name
from tiny_pi0 import loss, wrap

from pixelvla_core.errors import CheckpointError, UserError
from pixelvla_core.wrap import infer_contract

STATISTICS = {"mean": [0.5] * 8, "std": [2.0] * 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pi0") / "base"
    tiny_pi0.write(path)
    return path


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(base, tmp_path / "base")


def refused(folder: Path | str, options: Pi0Options | None = None, **given) -> str:
    with pytest.raises((CheckpointError, UserError)) as caught:
        build(options or Pi0Options(), weights=str(folder), **given)
    return str(caught.value)


def edit(folder: Path, change) -> None:
    """Change the stored tensors."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


# --- strict loading -----------------------------------------------------------------------------------------------


def test_a_missing_tensor_is_an_error_where_lerobot_goes_on_with_a_random_one(folder):
    edit(folder, lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k or "vision" in k})
    message = refused(folder)
    assert "6 missing (model.paligemma_with_expert.paligemma.model.language_model.layers.1.mlp" in message
    assert "No weight was loaded" in message


def test_tensors_left_over_or_of_another_shape_are_errors(folder):
    name = "model.state_proj.weight"
    edit(folder, lambda t: {**t, "model.extra.weight": torch.ones(2), name: torch.ones(32, 14)})
    message = refused(folder)
    assert "1 not expected (model.extra.weight)" in message
    assert f"1 of another shape ({name} is (32, 14) instead of (32, 32))" in message


def test_the_names_of_openpis_checkpoints_are_read_by_lerobots_rules(folder, base):
    def openpi(tensors):
        found = {name.removeprefix("model."): value for name, value in tensors.items() if name != EMBEDDING}
        return {name.replace("action_time_mlp_", "time_mlp_"): value for name, value in found.items()}

    edit(folder, openpi)
    stored = load_file(folder / "model.safetensors")
    policy = build(Pi0Options(), weights=str(folder)).module
    fixed = policy._fix_pytorch_state_dict_keys(stored, policy.config)
    theirs = {name if name.startswith("model.") else f"model.{name}": value for name, value in fixed.items()}
    mine = policy.state_dict()
    assert {model_name(name) for name in stored} | {EMBEDDING} == set(theirs) == set(mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(mine[EMBEDDING], load_file(base / "model.safetensors")[HEAD])


def test_a_folder_without_weights_or_with_pickled_ones(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has no model.safetensors. It holds pickled weights (pytorch_model.bin)" in refused(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "Give the folder of a complete checkpoint" in refused(folder)


def test_a_file_that_is_cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged or cut short" in refused(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "act"}', "is a 'act' policy; this adapter reads LeRobot's 'pi0'"),
        ('{"type": "pi05"}', "is a 'pi05' policy"),
        ('{"model_type": "openvla"}', "is of no LeRobot policy"),
        ("{", "is not a JSON object"),
        ('{"type": "pi0", "colour": 1}', "is not what this LeRobot writes"),
    ],
)
def test_another_models_config_is_named(folder, text, words):
    (folder / "config.json").write_text(text)
    assert words in refused(folder)


def test_a_folder_that_is_none(tmp_path):
    assert "is no folder and no id on the Hugging Face hub" in refused(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused(tmp_path / "empty")


def test_sizes_are_checked(folder):
    sizes = Sizes().to_json()
    for wrong, words in (({**sizes, "depht": 2}, "depht"), ({**sizes, "depth": 0}, "depth: 0"), ([1], "holds a list")):
        (folder / "sizes.json").write_text(json.dumps(wrong))
        assert words in refused(folder)
    (folder / "sizes.json").write_text(json.dumps({**sizes, "depth": 3}))
    assert "missing" in refused(folder)


def test_what_build_does_not_offer(base):
    with pytest.raises(UserError, match="needs weights"):
        build(Pi0Options(), weights=None)
    assert "cannot be quantised" in refused(base, quantize="8bit")
    assert "float32 or bfloat16" in refused(base, dtype="float16")
    message = refused(base, Pi0Options(policy={"num_inference_step": 5}))
    assert "no field of PI0Config. Did you mean 'num_inference_steps'?" in message
    assert "LeRobot refuses" in refused(base, Pi0Options(policy={"n_action_steps": 99}))


def test_fields_of_lerobots_config_can_be_changed(base):
    adapter = build(Pi0Options(policy={"num_inference_steps": 2, "chunk_size": 6}), weights=str(base))
    assert adapter.module.config.num_inference_steps == 2
    assert adapter.spec.action.horizon == 6


# --- the surface --------------------------------------------------------------------------------------------------


def test_a_compiled_pi0_is_refused_before_and_after_it_is_built(folder, base):
    configure(folder, compile_model=True)
    assert "Set compile_model to false in its config.json" in refused(folder)
    build(Pi0Options(policy={"compile_model": False}), weights=str(folder))
    policy = tiny_pi0.stock(base)
    policy.config.compile_model = True
    with pytest.raises(UserError, match="compile_model"):
        Pi0Adapter(policy, tokenizer=None)


def test_whatever_has_the_surface_fits(base):
    """The adapter around LeRobot's own policy, loaded by LeRobot."""
    mine = build(Pi0Options(), weights=str(base))
    fork = Pi0Adapter(tiny_pi0.stock(base), tokenizer=mine.text.tokenizer)
    samples = tiny_pi0.samples()
    assert torch.equal(loss(wrap(fork), samples), loss(wrap(mine), samples))


def test_what_misses_is_listed_with_the_versions_that_work(base):
    policy = tiny_pi0.stock(base)
    core = SimpleNamespace(**{name: getattr(policy.model, name) for name in ("forward", "sample_noise", "sample_time")})
    core.embed_prefix = lambda images, lang_tokens: None
    other = SimpleNamespace(model=core, config=policy.config, prepare_state=1, prepare_action=1)
    with pytest.raises(UserError) as caught:
        Pi0Adapter(other, tokenizer=None)
    for words in ("model.embed_prefix(img_masks)", "model.denoise_step", "embed_image", surface.TESTED, "LeRobot 0.6"):
        assert words in str(caught.value)
    assert "model.forward" not in str(caught.value)


def test_a_version_that_no_test_has_met_is_warned_of(base, monkeypatch):
    monkeypatch.setattr(surface, "version", lambda _: "0.9.0")
    with pytest.warns(UserWarning, match=r"LeRobot 0\.9\.0 is installed; pixelvla-pi0 is tested with >=0\.6,<0\.7"):
        build(Pi0Options(), weights=str(base))


# --- data that does not fit ---------------------------------------------------------------------------------------


def collated(base: Path, options: Pi0Options | None = None, **changes):
    adapter = build(options or Pi0Options(), weights=str(base))
    return adapter.collate([replace(tiny_pi0.samples(1)[0], **changes)], train=False)


def test_a_camera_that_is_not_there(base):
    with pytest.raises(UserError, match="has images of front, but the backbone reads front, top"):
        collated(base, Pi0Options(cameras=["front", "top"]))


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 0, 3), np.uint8)]
)
def test_an_image_that_is_none(base, image):
    with pytest.raises(UserError, match="expected uint8"):
        collated(base, images={"front": image})


def test_states(base):
    with pytest.raises(UserError, match="state of 33 values; pi0 reads 32 at most"):
        collated(base, state=np.zeros(33, np.float32))
    with pytest.raises(UserError, match="has no state"):
        collated(base, state=None)
    for state in (np.full(8, np.nan), np.array([0, np.inf]), "left", [[1, 2], [3]]):
        with pytest.raises(UserError, match=r"has the state .* expected finite numbers"):
            collated(base, state=state)
    off = Pi0Options(state=False)
    assert not collated(base, off, state=None).inputs["state"].any()
    assert not collated(base, off, state=np.ones(33)).inputs["state"].any()
    found = collated(base, state=np.arange(8, dtype=np.float32)).inputs["state"][0]
    assert found.tolist() == [*range(8), *[0] * 24]


def test_actions_that_pi0_cannot_learn(base):
    model = wrap(build(Pi0Options(), weights=str(base)))
    wide = replace(tiny_pi0.samples(1)[0], actions=np.zeros((4, 33), np.float32))
    with pytest.raises(UserError, match="chunks of 4 actions with 33 values each; this pi0 learns chunks of 4 with 32"):
        loss(model, [wide])
    short = replace(wide, actions=np.zeros((2, 7), np.float32), action_valid=np.ones(2, bool))
    with pytest.raises(UserError, match=r"Set action\.horizon=4"):
        loss(model, [short])
    with pytest.raises(UserError, match="33"):
        type(model.head)(None, model.backbone.spec, dim=33)


def test_a_long_instruction_is_cut_as_in_lerobot_and_said(base):
    with pytest.warns(UserWarning, match="longer than 24 tokens and is cut"):
        batch = collated(base, instruction=" ".join(["block"] * 40))
    assert batch.inputs["token_mask"].all()


def test_a_tokenizer_of_another_model(folder):
    from pixelvla_pi0.start import word_tokenizer

    word_tokenizer([f"word{i}" for i in range(200)]).save_pretrained(folder / "other")
    with pytest.raises(UserError, match="the model knows 128 words"):
        collated(folder, Pi0Options(tokenizer=str(folder / "other")), instruction="word199")
    assert "cannot be loaded" in refused(folder, Pi0Options(tokenizer=str(folder / "none")))


# --- statistics beside the weights --------------------------------------------------------------------------------


def _action_statistics(dim: int = 7) -> dict:
    return {name: [float(i)] * dim for i, name in enumerate(("min", "q01", "mean", "std", "q99", "max"))}


def test_states_are_normalised_by_the_statistics_beside_the_weights(folder):
    entry = {"action": _action_statistics(), "proprio": STATISTICS}
    (folder / "dataset_statistics.json").write_text(json.dumps({"table": entry}))
    adapter = build(Pi0Options(), weights=str(folder))
    state = adapter.collate([replace(tiny_pi0.samples(1)[0], state=np.full(8, 4.5))], train=False).inputs["state"]
    assert torch.allclose(state[0, :8], torch.full((8,), 2.0))
    assert not state[0, 8:].any()
    assert adapter.statistics == {"table": {"action": entry["action"]}}
    assert adapter.spec.action.dim == 7
    with pytest.raises(UserError, match="another robot's"):
        adapter.collate([replace(tiny_pi0.samples(1)[0], state=np.ones(5))], train=False)


def test_states_without_statistics_are_read_as_they_are_and_that_is_said(base):
    adapter, samples = build(Pi0Options(), weights=str(base)), tiny_pi0.samples(2)
    with pytest.warns(UserWarning, match="pi0 reads states in their own units"):
        adapter.collate(samples, train=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter.collate(samples, train=False)  # said once
        build(Pi0Options(state=False), weights=str(base)).collate(samples, train=False)
        build(Pi0Options(state_mean=[0.0] * 8, state_std=[1.0] * 8), weights=str(base)).collate(samples, train=False)


def test_statistics_of_several_data_sets_must_be_chosen_among(folder):
    entries = {"a": {"proprio": STATISTICS}, "b": {"proprio": {**STATISTICS, "mean": [0.0] * 8}}}
    (folder / "dataset_statistics.json").write_text(json.dumps(entries))
    assert "backbone.options.key=NAME" in refused(folder)
    assert "statistics of a, b" in refused(folder, Pi0Options(key="c"))
    state = collated(folder, Pi0Options(key="b"), state=np.full(8, 4.0)).inputs["state"]
    assert torch.allclose(state[0, :8], torch.full((8,), 2.0))


@pytest.mark.parametrize(
    "entry",
    [
        {"mean": [1.0, 2.0]},
        {"mean": [1.0], "std": [1.0, 2.0]},
        {"mean": [], "std": []},
        {"mean": ["a"], "std": [1.0]},
        {"mean": [float("nan")], "std": [1.0]},
        {"mean": [1.0], "std": [-1.0]},
    ],
)
def test_statistics_of_states_that_cannot_be(entry, folder):
    (folder / "dataset_statistics.json").write_text(json.dumps({"a": {"proprio": entry}}))
    assert "expected lists of finite numbers, `mean` and `std`" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_inference_steps", 0, "num_inference_steps of this pi0 is 0; expected a whole number, at least 1"),
        ("num_inference_steps", -2, "at least 1"),
        ("num_inference_steps", 2.5, "a whole number"),
        ("num_inference_steps", "many", "a whole number"),
        ("tokenizer_max_length", 0, "at least 1"),
        ("min_period", "short", "a finite number"),
        ("use_relative_actions", 1, "true or false"),
        ("dtype", "float16", "give backbone.dtype"),
        ("rtc_config", {"enable": True}, "LeRobot refuses the fields"),
        ("rtc_config", {"enabled": "perhaps"}, "Couldn't parse 'perhaps' into a bool"),
    ],
)
def test_fields_of_lerobots_config_are_checked_when_it_is_read(field, value, words, base):
    assert words in refused(base, Pi0Options(policy={field: value}))


def test_a_field_that_is_a_mapping_becomes_what_lerobot_makes_of_it(base):
    adapter = build(Pi0Options(policy={"rtc_config": {"enabled": True, "execution_horizon": 2}}), weights=str(base))
    assert adapter.module.config.rtc_config.execution_horizon == 2
    assert adapter.module.rtc_processor is not None


def test_a_config_that_samples_nothing_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_inference_steps": 0}))
    assert "num_inference_steps of this pi0 is 0" in refused(folder)


def test_given_statistics_win(folder):
    (folder / "dataset_statistics.json").write_text(json.dumps({"a": {"proprio": STATISTICS}}))
    options = Pi0Options(state_mean=[1.0] * 5, state_std=[3.0] * 5)
    assert torch.allclose(
        collated(folder, options, state=np.full(5, 7.0)).inputs["state"][0, :5], torch.full((5,), 2.0)
    )
    with pytest.raises(ValueError, match="state_std"):
        Pi0Options(state_mean=[1.0])


def test_lerobots_own_processors_beside_the_weights_are_used(folder):
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import (
        NormalizerProcessorStep,
        PolicyProcessorPipeline,
        TransitionKey,
        UnnormalizerProcessorStep,
    )

    stats = {"observation.state": {"count": [9], **STATISTICS}, "action": _action_statistics()}
    step = NormalizerProcessorStep(
        features={
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(8,)),
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(7,)),
        },
        norm_map=dict.fromkeys((FeatureType.STATE, FeatureType.ACTION), NormalizationMode.MEAN_STD),
        stats=stats,
    )
    PolicyProcessorPipeline([step], name="policy_preprocessor").save_pretrained(folder)
    adapter = build(Pi0Options(), weights=str(folder))
    assert adapter.statistics == {"lerobot": {"action": {**_action_statistics(), "rule": "mean_std"}}}
    contract = infer_contract(adapter, {})
    assert contract.rule == "mean_std"
    found = torch.randn(4, 7)
    unnormalize = UnnormalizerProcessorStep(features=step.features, norm_map=step.norm_map, stats=stats)
    wanted = unnormalize({TransitionKey.ACTION: found})[TransitionKey.ACTION]
    assert torch.allclose(contract.unnormalize(found), wanted)
    state = adapter.collate([replace(tiny_pi0.samples(1)[0], state=np.full(8, 4.5))], train=False).inputs["state"]
    assert torch.allclose(state[0, :8], torch.full((8,), 2.0))
    adapter.save_base(folder.parent / "saved")
    again = build(Pi0Options(), weights=str(folder.parent / "saved"))
    assert again.statistics == adapter.statistics
    assert again.state.step is not None


def test_saving_leaves_what_is_no_pi0_alone(base, tmp_path):
    adapter = build(Pi0Options(), weights=str(base))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years")
    with pytest.raises(UserError, match="left alone"):
        adapter.save_base(tmp_path / "mine")
    adapter.save_base(tmp_path / "saved")
    adapter.save_base(tmp_path / "saved")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "three years"
