"""What ``pixelvla annotations`` says to sidecars that another tool, a disk or an interruption left in disorder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelvla_core.annotations.episodes import EPISODE_SCHEMA, EPISODES, EpisodeNote, discarded
from pixelvla_core.annotations.reader import read_manifest
from pixelvla_core.annotations.rle import MOST_PIXELS, Rle
from pixelvla_core.annotations.schema import MANIFEST, SCHEMA, Annotation, Header
from pixelvla_core.annotations.validate import validate
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.cli.main import main
from pixelvla_core.errors import DataError
from pixelvla_core.files import sha256

FRAMES = 3
NULLABLE = pa.schema([field.with_nullable(True) for field in SCHEMA])
NOTES = pa.schema([field.with_nullable(True) for field in EPISODE_SCHEMA])


def write(folder: Path, episodes: range, target: str = "cup") -> Path:
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:12] = True
    facts: dict[str, Any] = {"camera": "front", "target": target, "mask": Rle.encode(mask)}
    header = Header(dataset="me/cups", fingerprint="ab" * 32, camera="front")
    writer = SidecarWriter(folder, header, episodes, episodes_per_shard=2)
    for shard in writer.missing():
        made = [Annotation(episode=episode, frame=frame, **facts) for episode in shard for frame in range(FRAMES)]
        writer.write(shard, made)
    return writer.finish([EpisodeNote(episode=episode, kept=True, score=0.5) for episode in episodes])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    write(tmp_path / "b", range(10, 12))
    return write(tmp_path / "a", range(4))


def stated(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = read_manifest(folder)
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rows(folder: Path, change: Callable[[list[dict]], object], schema: pa.Schema = SCHEMA) -> None:
    """Change the rows of the first file, and let the manifest agree."""
    name = read_manifest(folder)["files"][0]["path"]
    path = folder / name
    found = pq.read_table(path).to_pylist()
    change(found)
    pq.write_table(pa.Table.from_pylist(found, schema), path)
    stated(folder, lambda manifest: manifest["files"][0].update(sha256=sha256(path), bytes=path.stat().st_size))


def first(**values) -> Callable[[Path], None]:
    return lambda folder: rows(folder, lambda found: found[0].update(values))


def notes(*changes: dict, columns: pa.Schema = NOTES) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = [vars(EpisodeNote(episode=episode, kept=True)) | change for episode, change in enumerate(changes)]
        path = folder / EPISODES
        pq.write_table(pa.Table.from_pylist(found, columns), path)
        facts = {"path": EPISODES, "sha256": sha256(path), "bytes": path.stat().st_size}
        stated(folder, lambda manifest: manifest.update(episodes=facts))

    return damage


def said(capsys, *arguments: object) -> str:
    """What a command says to the damage; it must be an error in words."""
    assert main(["annotations", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out + captured.err


def commands(folder: Path) -> dict[str, list[object]]:
    beside = folder.parent
    return {
        "validate": ["validate", folder],
        "stats": ["stats", folder],
        "merge": ["merge", folder, beside / "b", "--out", beside / "m"],
        "export": ["export", folder, beside / "a.json"],
        "compare": ["compare", folder, folder],
        "push": ["push", folder, "--repo-id", "me/cups"],
    }


MASKS = "validate stats export compare"
FILES = "validate stats merge export compare push"


@pytest.mark.parametrize(
    ("damage", "words", "names"),
    [
        (first(mask_height=100_000, mask_width=100_000), f"at most {MOST_PIXELS}", MASKS),
        (first(mask_height=2**31 - 1, mask_width=2**31 - 1), "at most", MASKS),
        (first(mask_height=-20, mask_width=-30), "-20 x -30 pixels", MASKS),
        (first(mask_height=0), "0 x 30 pixels", MASKS),
        (first(mask_width=None), "20 x None pixels", MASKS),
        (first(mask_counts=b"\xff\x00zz"), "hold the byte 255", MASKS),
        (first(mask_counts=b""), "run lengths are empty", MASKS),
        (first(mask_counts=b"oooo"), "run lengths", MASKS),
        (first(mask_counts=b"o" * 40 + b"0"), "run lengths", "validate export compare"),
        (first(camera="wrist"), "camera 'wrist', the manifest says 'front'", FILES),
        (lambda folder: rows(folder, lambda found: found[0].update(camera=None), NULLABLE), "null", FILES),
        (
            lambda folder: rows(folder, lambda found: found.append(found[-1])),
            "not in the order",
            "validate merge compare",
        ),
        (
            lambda folder: stated(folder, lambda it: it["files"].append(it["files"][0])),
            "not in the order",
            "merge compare",
        ),
        (lambda folder: stated(folder, lambda it: it["files"][0].update(path="../b/x")), "outside the sidecar", FILES),
        (lambda folder: stated(folder, lambda it: it["files"][0].update(episodes=["a"])), "first and last", FILES),
        (lambda folder: stated(folder, lambda it: it["counts"].update(ok="many")), "no ok (int)", FILES),
        (lambda folder: stated(folder, lambda it: it.update(episodes=3)), "no path (str)", FILES),
        (
            lambda folder: (folder / EPISODES).unlink(),
            "missing, though the manifest lists it",
            "validate stats merge push",
        ),
        (lambda folder: (folder / EPISODES).write_bytes(b"PAR1"), "damaged", "validate stats merge"),
        (lambda folder: (folder / EPISODES).write_bytes(b"PAR1"), "has another checksum", "validate push"),
        (notes({"kept": None}, {"score": None}), "has a column of another type", "validate stats merge"),
        (notes({}, {}, columns=NOTES.remove(1)), "lacks the columns kept", "validate stats merge"),
    ],
)
def test_damage_is_told_in_words_whatever_is_done(folder, capsys, damage, words, names):
    damage(folder)
    for name in names.split():
        assert words in said(capsys, *commands(folder)[name]), name
    assert not (folder.parent / "m").exists()
    assert not (folder.parent / "a.json").exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (notes({}, {"close_frame": FRAMES}), "closes on frame 3, which there is not"),
        (notes({}, {"close_frame": -1}), "closes on frame -1"),
        (notes({"region": [0.1, 0.2]}), "region [0.1"),
        (notes({"region": [0.5, 0.5, 0.1, 0.1]}), "region [0.5"),
        (notes({"region": [9.0, 9.0, 10.0, 10.0]}), "region [9.0"),
        (lambda folder: stated(folder, lambda it: it["files"][0].update(rows=5)), "6 rows, the manifest says 5"),
        (
            lambda folder: stated(folder, lambda it: it["files"][0].update(episodes=[2, 3])),
            "episodes 0 to 1, the manifest says [2, 3]",
        ),
    ],
)
def test_what_only_validation_looks_at(folder, damage, words):
    damage(folder)
    assert any(words in problem for problem in validate(folder, lengths=[FRAMES] * 4))


def test_training_does_not_take_missing_notes_for_no_notes(folder):
    (folder / EPISODES).unlink()
    with pytest.raises(DataError, match="missing, though the manifest lists it"):
        discarded(folder)


def test_a_merged_sidecar_counts_what_it_holds(folder, capsys):
    stated(folder, lambda manifest: manifest.update(counts={"episodes": 4, "ok": 999}))
    both = folder.parent / "m"
    assert main(["annotations", "merge", str(folder), str(folder.parent / "b"), "--out", str(both)]) == 0
    assert read_manifest(both)["counts"] == {"episodes": 6, "rows": 18, "ok": 18}
    assert validate(both) == []


@pytest.mark.parametrize("target", ['красная 杯子 \U0001f600 "q" \\', "two\nlines\tand tabs", "a\0b"])
def test_any_target_goes_through(tmp_path, monkeypatch, capsys, target):
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    folder, other = write(tmp_path / "a", range(2), target), write(tmp_path / "b", range(2, 4))
    for arguments in (["validate", folder], ["stats", folder], ["merge", folder, other, "--out", tmp_path / "m"]):
        assert main(["annotations", *map(str, arguments)]) == 0
    assert main(["annotations", "export", str(tmp_path / "m"), str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["categories"][0]["name"] == target
    capsys.readouterr()
    assert main(["annotations", "compare", str(folder), str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_empty_sidecar_is_nothing_to_be_afraid_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    empty, other = write(tmp_path / "a", range(0)), write(tmp_path / "b", range(2))
    for arguments in (
        ["validate", empty],
        ["stats", empty],
        ["export", empty, tmp_path / "a.json"],
        ["compare", empty, other],
    ):
        assert main(["annotations", *map(str, arguments)]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["annotations"] == []
    assert "has no episodes.parquet" in said(capsys, "merge", empty, other, "--out", tmp_path / "m")


def test_a_folder_is_no_file_to_write_to(folder, capsys):
    assert main(["annotations", "export", str(folder), str(folder.parent)]) == 2
    assert main(["annotations", "stats", str(folder), "--picture", str(folder.parent)]) == 2
    assert "is a directory" in capsys.readouterr().err


def test_what_an_interruption_leaves_is_passed_over(folder, capsys):
    for name in (".episodes-000000-000001.parquet.1234.partial", ".x.partial"):
        (folder / "rows" / name).write_bytes(b"torn")
    (folder.parent / ".m.1234.partial").mkdir()
    assert main(["annotations", "validate", str(folder)]) == 0
    both = folder.parent / "m"
    assert main(["annotations", "merge", str(folder), str(folder.parent / "b"), "--out", str(both)]) == 0
    assert {path.name for path in (both / "rows").iterdir()} == {
        "episodes-000000-000001.parquet",
        "episodes-000002-000003.parquet",
        "episodes-000010-000011.parquet",
    }
