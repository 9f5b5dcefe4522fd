"""What core offers to the weights.py of adapters: headers, comparison, the hub, JSON; and levels, cameras, images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pixelvla_core.api import (
    CheckpointError,
    Sample,
    UserError,
    check_cameras,
    check_image,
    check_tensors,
    level_blocks,
    local_folder,
    no_weights,
    read_json,
    tensor_headers,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int8)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_headers_say_what_a_file_holds(file: Path) -> None:
    found = tensor_headers(file)
    assert {name: (stored.name, stored.shape, stored.dtype) for name, stored in found.items()} == {
        "a": ("a", (2, 3), "F32"),
        "b": ("b", (4,), "I8"),
    }


def test_a_file_cut_short_or_missing_is_told(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"damaged or cut short .*{file.stat().st_size} bytes"):
        tensor_headers(file)
    with pytest.raises(CheckpointError, match="not there"):
        tensor_headers(file.with_name("other.safetensors"))


def test_what_fits_passes_whatever_type_of_number_the_model_has_there(file: Path) -> None:
    wanted = {"a": torch.zeros(2, 3, device="meta", dtype=torch.bfloat16), "b": torch.zeros(4, dtype=torch.int8)}
    check_tensors(wanted, tensor_headers(file), file)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"a": torch.zeros(2, 3)}, r"of 1 tensors 1 not expected \(b\)\. No weight was loaded"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, r"1 not of floating point \(b is I8\)"),
        ({"a": torch.zeros(3, 2), "b": torch.zeros(4).byte()}, r"1 of another shape \(a is \(2, 3\) instead of \(3, 2"),
        ({name: torch.zeros(1) for name in "cdef"}, r"4 missing \(c, d, e, \.\.\.\), 2 not expected \(a, b\)"),
    ],
)
def test_what_does_not_fit_is_counted_and_named(file: Path, wanted: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        check_tensors(wanted, tensor_headers(file), file)


def test_json_that_is_missing_damaged_or_no_object(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(path)
    for text, words in (
        ("{", "is not a JSON object"),
        ("[1]", "holds a list, not an object"),
        ("\xff", "is not a JSON"),
    ):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(CheckpointError, match=words):
            read_json(path)
    path.write_text('{"name": "Köln"}', encoding="utf-8")
    assert read_json(path) == {"name": "Köln"}


def test_a_folder_without_weights_says_so_and_whether_they_are_pickled(tmp_path: Path) -> None:
    assert "has no a.st. Give the folder" in str(no_weights(tmp_path, "a.st"))
    (tmp_path / "weights.pt").touch()
    assert "has neither a.st nor b.json. It holds pickled weights (weights.pt)" in str(
        no_weights(tmp_path, "a.st", "b.json")
    )


def test_a_folder_is_itself_and_the_rest_is_an_id_or_an_error(tmp_path: Path, monkeypatch) -> None:
    assert local_folder(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="is no folder and no id"):
        local_folder(tmp_path / "nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        local_folder("nobody/nothing", wanted=["*.json"])


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6).map(sorted), st.integers(1, 30))
def test_level_blocks_lie_within_the_tower_and_in_order(fractions, blocks):
    found = level_blocks(fractions, blocks)
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] < blocks
    assert level_blocks([1.0], blocks) == [blocks - 1]


def test_a_level_halfway_between_two_blocks_is_the_deeper_one():
    """Whatever the number of blocks is; Python's round() would take the even one."""
    assert [level_blocks([0.5], blocks)[0] + 1 for blocks in range(1, 10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert level_blocks([0.25, 0.5, 0.75, 1.0], 6) == [1, 2, 4, 5]


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_a_level_outside_the_tower_is_refused(fraction):
    with pytest.raises(UserError, match="depth fractions"):
        level_blocks([fraction], 4)


def test_a_camera_that_is_missing_is_named():
    sample = Sample(images={"top": np.zeros((4, 4, 3), np.uint8)}, instruction="move", key="ep1")
    check_cameras(sample, ("top",))
    with pytest.raises(UserError, match="Sample ep1 has images of top, but the backbone reads top, wrist"):
        check_cameras(sample, ("top", "wrist"))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[0]], "of type list"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "of type Tensor"),
        (np.zeros((4, 4, 3), np.float32), r"float32\[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8\[4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8\[0, 4, 3\]"),
    ],
)
def test_what_is_no_image_is_described(image, words):
    with pytest.raises(UserError, match=f"The view is {words}; expected uint8"):
        check_image(image, "The view")
    check_image(np.zeros((1, 2, 3), np.uint8))
