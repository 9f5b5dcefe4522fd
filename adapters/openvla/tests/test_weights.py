"""Loading and saving checkpoint folders: the official names, strictness, and what happens with damaged input."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixelvla_openvla import OpenVLA, weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.wrap import wrap

EMBED = "language_model.model.embed_tokens.weight"


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the tiny official checkpoint, to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "ckpt")


@pytest.fixture
def saved(small, tmp_path):
    """Folder of the small model."""
    small.save_pretrained(tmp_path / "small", dtype="float32")
    return tmp_path / "small"


def rewrite(folder, change):
    """Apply `change` to the tensors of a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def names(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as handle:
        return {name: handle.get_slice(name).get_shape() for name in handle.keys()}  # noqa: SIM118


def same(a, b) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_saving_gives_the_official_names_and_the_same_bits(official, checkpoint, tmp_path):
    official.save_pretrained(tmp_path / "out", dtype=torch.float32)
    assert names(tmp_path / "out") == names(checkpoint)
    again = OpenVLA.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert same(official, again)
    assert again.norm_stats == official.norm_stats
    assert again.images == official.images


def test_saving_keeps_what_config_json_said(official, checkpoint, tmp_path):
    official.save_pretrained(tmp_path / "out", dtype=torch.float32)
    before, after = (json.loads((f / "config.json").read_text()) for f in (checkpoint, tmp_path / "out"))
    assert before == after
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32000}


def test_the_small_model_is_an_ordinary_folder(small, saved):
    again = OpenVLA.from_pretrained(saved)
    assert same(small, again)
    assert again.tokenizer("open the drawer") == small.tokenizer("open the drawer")
    assert {p.name for p in saved.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"),
        *("tokenizer.json", "dataset_statistics.json"),
    }


def test_the_type_is_the_stored_one_unless_one_is_given(small, tmp_path):
    small.save_pretrained(tmp_path / "half")
    assert {p.dtype for p in OpenVLA.from_pretrained(tmp_path / "half").parameters()} == {torch.bfloat16}
    assert {p.dtype for p in OpenVLA.from_pretrained(tmp_path / "half", dtype="float32").parameters()} == {
        torch.float32
    }
    with pytest.raises(UserError, match="int8"):
        OpenVLA.from_pretrained(tmp_path / "half", dtype="int8")


def test_bfloat16_stays_near_float32(checkpoint, official, reference):
    half = OpenVLA.from_pretrained(checkpoint, dtype=torch.bfloat16)
    ids, pixels = reference["in.input_ids"], reference["in.pixel_values"]
    with torch.no_grad():
        moved = (half(ids, None, pixels).last_hidden_state - official(ids, None, pixels).last_hidden_state).abs().max()
    assert 0 < moved < 0.15


def test_shards_are_written_and_read(small, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 60_000)
    small.save_pretrained(tmp_path / "out", dtype="float32")
    files = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert same(small, OpenVLA.from_pretrained(tmp_path / "out"))
    (tmp_path / "out" / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"lacks 1 of {len(files)} weight files .*{files[1]}"):
        OpenVLA.from_pretrained(tmp_path / "out")


def test_saving_replaces_a_checkpoint_as_a_whole_but_nothing_else(small, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 60_000)
    small.save_pretrained(saved, dtype="float32")
    assert not (saved / "model.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="left alone"):
        small.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"


def test_a_failed_save_leaves_the_old_checkpoint(small, saved, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        small.save_pretrained(saved)
    assert same(small, OpenVLA.from_pretrained(saved))
    assert [p.name for p in saved.parent.iterdir()] == ["small"]


def test_missing_extra_and_misshapen_tensors_are_counted_and_named(copy):
    def change(tensors):
        del tensors["projector.fc1.weight"], tensors["projector.fc1.bias"]
        tensors["projector.fc9.weight"] = torch.zeros(1)
        tensors["language_model.model.norm.weight"] = torch.zeros(33)

    rewrite(copy, change)
    with pytest.raises(CheckpointError) as caught:
        OpenVLA.from_pretrained(copy)
    message = str(caught.value)
    assert "2 missing (projector.fc1.weight, projector.fc1.bias)" in message
    assert "1 not expected (projector.fc9.weight)" in message
    assert "1 of another shape (language_model.model.norm.weight is (33,) instead of (32,))" in message
    assert "No weight was loaded" in message


def test_tensors_of_integers_are_refused(copy):
    name = "projector.fc1.weight"
    rewrite(copy, lambda tensors: tensors.update({name: tensors[name].to(torch.int32)}))
    with pytest.raises(CheckpointError, match=r"1 not of floating point \(projector\.fc1\.weight is I32\)"):
        OpenVLA.from_pretrained(copy)


def test_a_folder_without_tokenizer_is_not_wrapped(copy, tmp_path):
    for file in copy.rglob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        wrap("openvla", str(copy), tmp_path / "wrapped", ["head/native"])
    assert not (tmp_path / "wrapped").exists()


@pytest.mark.parametrize("name", ["featurizer.blocks.2.norm1.weight", "fused_featurizer.attn_pool.latent"])
def test_tensors_that_are_never_computed_must_be_there_too(copy, name):
    rewrite(copy, lambda tensors: tensors.pop(f"vision_backbone.{name}"))
    with pytest.raises(CheckpointError, match="1 missing"):
        OpenVLA.from_pretrained(copy)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_noticed_before_a_model_is_built(saved, tmp_path, fraction):
    whole = (saved / "model.safetensors").read_bytes()
    cut = shutil.copytree(saved, tmp_path / "cut", dirs_exist_ok=True)
    (cut / "model.safetensors").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        weights.headers(cut)


def test_pickled_weights_are_not_opened(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80\x04boom")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model-00001-of-00002.bin\)"):
        OpenVLA.from_pretrained(copy)


def test_a_folder_without_weights_says_what_is_expected(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        OpenVLA.from_pretrained(copy)


def test_a_tensor_in_two_files_is_refused(copy):
    save_file({EMBED: torch.zeros(1)}, copy / "b.safetensors")
    index = {"weight_map": {EMBED: "b.safetensors", "projector.fc1.bias": "model.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is in both"):
        OpenVLA.from_pretrained(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../../x.safetensors"}}'])
def test_a_damaged_index_is_refused(copy, text):
    (copy / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError):
        OpenVLA.from_pretrained(copy)


def test_dataset_statistics_replace_those_of_config_json(copy):
    stats = {"mine": {"action": {"q01": [0.0], "q99": [1.0]}}}
    (copy / "dataset_statistics.json").write_text(json.dumps(stats))
    assert OpenVLA.from_pretrained(copy).norm_stats == stats


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llava"}, "model_type 'llava'"),
        ({"timm_model_ids": ["vit_test_patch14_reg4_dinov3", "vit_test_patch14_siglip_224"]}, "Did you mean 'vit_test"),
        (
            {"timm_model_ids": None, "vision_backbone_id": "dinosiglip-vit-so-225px"},
            "Did you mean 'dinosiglip-vit-so-2",
        ),
        ({"image_sizes": [224, 384]}, r"image_sizes \[224, 384\]"),
        ({"towers": [{"patch_size": 14, "embed_dimm": 3}] * 2}, "embed_dimm"),
        ({"image_resize_strategy": "stretch"}, None),
        ({"text_config": {"model_type": "phi"}}, "'phi'"),
        ({"text_config": {"vocab_size": 32064, "tie_word_embeddings": True}}, "ties"),
        ({"norm_stats": {}}, None),
        ({"text_config": 3}, "text_config 3"),
        ({"text_config": {"hidden_size": "x"}}, "hidden_size"),
        ({"text_config": {"vocab_size": "x"}}, "vocab_size 'x'"),
        ({"text_config": {"hidden_size": 64, "num_attention_heads": 7}}, "attention heads"),
        ({"text_config": {"intermediate_size": -4}}, "No model can be made"),
        ({"image_sizes": "abc"}, "image_sizes 'abc'"),
        ({"towers": 3}, "towers 3"),
        ({"towers": [{"patch_size": 0}] * 2}, "No model can be made"),
        ({"pad_to_multiple_of": "x"}, "pad_to_multiple_of 'x'"),
    ],
)
def test_config_json(copy, change, said):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    if said is None:  # other files overrule these
        OpenVLA.from_pretrained(copy)
    else:
        with pytest.raises(UserError, match=said):
            OpenVLA.from_pretrained(copy)


@pytest.mark.parametrize(
    "stats", [{"mine": 3}, {"mine": {"action": {"q01": 1}}}, {"mine": {"action": {"q01": [0], "q99": ["x"]}}}]
)
def test_statistics_that_are_none_are_refused(copy, stats):
    (copy / "dataset_statistics.json").write_text(json.dumps(stats))
    with pytest.raises(CheckpointError, match=r"data set 'mine' have no lists of numbers"):
        OpenVLA.from_pretrained(copy)


def test_statistics_of_two_lengths_are_refused(copy):
    stats = {"mine": {"action": {"q01": [0.0], "q99": [1.0, 2.0]}}}
    (copy / "dataset_statistics.json").write_text(json.dumps(stats))
    with pytest.raises(CheckpointError, match="1 values in q01 and 2 in q99"):
        OpenVLA.from_pretrained(copy)


@pytest.mark.parametrize("text", [None, "", "{", "[]"])
def test_a_damaged_config_json_is_refused(copy, text):
    (copy / "config.json").unlink() if text is None else (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        OpenVLA.from_pretrained(copy)


def test_bare_llama_defaults_are_those_of_the_official_config(official):
    llama = official.language_model.config
    assert (llama.rms_norm_eps, llama.max_position_embeddings, llama.num_key_value_heads) == (1e-6, 2048, 2)
    assert llama.rope_parameters["rope_theta"] == 1e4
    assert official.config.vocab_size == 32000


def test_a_given_rope_theta_is_honoured(small_config):
    small_config["text_config"]["rope_theta"] = 500.0
    inverse = OpenVLA.from_config(small_config).language_model.model.rotary_emb.inv_freq
    assert torch.allclose(inverse, 500.0 ** (-torch.arange(0, 16, 2) / 16))


def test_one_seed_gives_one_model(small_config):
    state = torch.random.get_rng_state()
    a, b, c = (OpenVLA.from_config(small_config, seed=seed) for seed in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_hub_that_cannot_be_reached_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        OpenVLA.from_pretrained("openvla/openvla-7b-that-is-nowhere")


def test_what_is_neither_folder_nor_id_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder and no id"):
        OpenVLA.from_pretrained(tmp_path / "nowhere")


def test_the_real_architecture_has_the_official_shapes():
    """openvla-7b's config.json, as far as it matters, on the meta device: nothing is allocated."""
    config = {
        "model_type": "openvla",
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "llm_backbone_id": "llama2-7b-pure",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "pad_token_id": 32000, "torch_dtype": "bfloat16"},
        "norm_stats": {"bridge_orig": {"action": {"q01": [0.0] * 7, "q99": [1.0] * 7}}},
    }
    with torch.device("meta"):
        model = OpenVLA.from_config(config)
    shapes = {weights.official_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    assert sum(value.numel() for value in model.parameters()) == 7_541_237_184  # as openvla-7b is known to have
    assert shapes["vision_backbone.featurizer.pos_embed"] == (1, 256, 1024)
    assert shapes["vision_backbone.featurizer.reg_token"] == (1, 4, 1024)
    assert shapes["vision_backbone.featurizer.blocks.23.ls2.scale_factor"] == (1024,)
    assert shapes["vision_backbone.fused_featurizer.blocks.26.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["vision_backbone.fused_featurizer.attn_pool.latent"] == (1, 1, 1152)
    assert shapes["projector.fc1.weight"] == (8704, 2176)
    assert shapes["projector.fc3.weight"] == (4096, 4096)
    assert shapes["language_model.lm_head.weight"] == (32064, 4096)
    assert len(model.vision_backbone.towers[0].blocks) == 24
    assert model.config.vocab_size == 32000
