"""``pixelvla data lint`` and ``pixelvla annotations``, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cups import LENGTHS, mask

from pixelvla_core.annotations.rle import Rle
from pixelvla_core.cli.main import main


@pytest.fixture
def masks(tmp_path) -> Path:
    lines = [
        {
            "episode": episode,
            "camera": "observation.images.front",
            "size": list(mask(0, 0).shape),
            "target": "cup",
            "target_masks": [Rle.encode(mask(episode, frame)).counts.decode() for frame in range(length)],
            "reference_masks": None,
        }
        for episode, length in enumerate(LENGTHS)
    ]
    path = tmp_path / "cups.masks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_masks_become_a_sidecar_that_is_valid_and_gives_samples(recorded, masks, tmp_path, load, capsys):
    root, out = recorded["images"], tmp_path / "sidecar"
    assert main(["annotations", "oracle", str(masks), str(root), str(out)]) == 0
    assert main(["annotations", "validate", str(out), str(root)]) == 0
    assert "is valid" in capsys.readouterr().out
    assert len(load(root, annotations=str(out), prompts={"point": 1.0})) == sum(LENGTHS)


def test_a_damaged_sidecar_is_the_users_error(recorded, annotate, cache, capsys):
    sidecar = annotate(recorded["images"])
    path = next(sidecar.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-10])
    assert main(["annotations", "validate", str(sidecar)]) == 2
    output = capsys.readouterr()
    assert path.name in output.out
    assert "problems" in output.err


def test_a_sidecar_of_other_data_is_the_users_error(recorded, annotate, cache, capsys):
    assert main(["annotations", "validate", str(annotate(recorded["images"])), str(recorded["videos"])]) == 2
    assert "the data changed" in capsys.readouterr().out


def test_lint_says_what_it_understood(recorded, cache, capsys):
    assert main(["data", "lint", str(recorded["images"])]) == 0
    output = capsys.readouterr().out
    assert "3 episodes, 22 frames" in output
    assert "open=1.0, closed=0.0" in output
    assert "euler_xyz_delta" in output


def test_lint_of_nothing_is_the_users_error(tmp_path, cache, capsys):
    assert main(["data", "lint", str(tmp_path)]) == 2
    assert "is no LeRobotDataset" in capsys.readouterr().err
