"""Comparing two sidecars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pixelvla_core.annotations.compare import compare, table
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import Annotation, Header
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.cli.main import main
from pixelvla_core.errors import DataError


def sidecar(
    folder: Path,
    masks: dict[tuple[int, int], np.ndarray],
    status: str = "ok",
    camera: str = "front",
    targets: tuple[str, ...] = ("cup", "cup", "cup"),
) -> Path:
    writer = SidecarWriter(folder, Header(dataset="d", fingerprint="f", camera=camera), range(3))
    rows = [
        Annotation(episode=e, frame=f, camera=camera, target=targets[e], mask=Rle.encode(mask), status=status)
        for (e, f), mask in masks.items()
    ]
    for shard in writer.missing():
        writer.write(shard, rows)
    return writer.finish()


def square(left: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((30, 60), bool)
    mask[5 : 5 + side, left : left + side] = True
    return mask


def test_what_agrees_and_what_does_not_is_counted(tmp_path: Path) -> None:
    truth = {(0, 0): square(0), (0, 1): square(0), (1, 0): square(20), (2, 0): square(40)}
    found = {(0, 0): square(0), (1, 0): square(45)}
    agreement = compare(sidecar(tmp_path / "a", found), sidecar(tmp_path / "b", truth), tmp_path / "cache")
    assert (agreement.episodes, agreement.kept) == (3, 2)
    assert agreement.iou == agreement.first_iou == 0.5
    assert agreement.missed == pytest.approx(1 / 3)
    assert agreement.wrong == 0.5
    assert "2 of 3 episodes kept (66.7%); overlap with the truth 0.500" in str(agreement)


def test_a_sidecar_agrees_with_itself(tmp_path: Path) -> None:
    folder = sidecar(tmp_path / "a", {(0, 0): square(0), (0, 1): square(7)})
    agreement = compare(folder, folder, tmp_path / "cache")
    assert (agreement.iou, agreement.first_iou, agreement.missed, agreement.wrong) == (1.0, 1.0, 0.0, 0.0)


def test_only_usable_masks_count(tmp_path: Path) -> None:
    truth = sidecar(tmp_path / "b", {(0, 0): square(0)})
    agreement = compare(sidecar(tmp_path / "a", {(0, 0): square(0)}, "review"), truth, tmp_path / "cache")
    assert (agreement.kept, agreement.iou) == (0, 0.0)


def test_different_cameras_are_refused(tmp_path: Path) -> None:
    one = sidecar(tmp_path / "a", {(0, 0): square(0)})
    two = sidecar(tmp_path / "b", {(0, 0): square(0)}, camera="wrist")
    with pytest.raises(DataError, match="different cameras"):
        compare(one, two, tmp_path / "cache")


def test_masks_of_different_sizes_are_refused(tmp_path: Path) -> None:
    one = sidecar(tmp_path / "a", {(0, 0): square(0)})
    two = sidecar(tmp_path / "b", {(0, 0): square(0)[:, :40]})
    with pytest.raises(DataError, match="30 x 60 and 30 x 40 pixels cannot be compared"):
        compare(one, two, tmp_path / "cache")


def test_the_table_tells_targets_and_first_frames_apart(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    truth = {(0, frame): square(0) for frame in range(4)} | {(1, 0): square(20), (2, 0): square(40)}
    found = {(0, 1): square(0), (0, 2): square(0), (0, 3): square(5), (0, 9): square(0), (1, 0): square(45)}
    one = sidecar(tmp_path / "a", found)
    two = sidecar(tmp_path / "b", truth, targets=("red cup", "Schüssel", "red cup"))
    assert main(["annotations", "compare", str(one), str(two)]) == 0
    rows = {line[:8].strip(): line[8:].split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows == {
        "all": ["3", "66.7%", "50.0%", "20.0%", "20.0%", "0.583", "0.667", "0.500", "0.500"],
        "red cup": ["2", "50.0%", "0.0%", "25.0%", "25.0%", "0.778", "1.000", "1.000", "1.000"],
        "Schüssel": ["1", "100.0%", "100.0%", "0.0%", "0.0%", "0.000", "0.000", "0.000", "0.000"],
    }
    assert main(["annotations", "compare", str(one), str(two), "--targets", "1"]) == 0
    assert capsys.readouterr().out.endswith("and 1 more targets\n")


def test_without_anything_kept_the_table_has_no_numbers(tmp_path: Path) -> None:
    found = compare(sidecar(tmp_path / "a", {}), sidecar(tmp_path / "b", {(0, 0): square(0)}), tmp_path / "cache")
    assert table(found, 0).splitlines()[2].split() == ["all", "1", "0.0%", *"-------"]
