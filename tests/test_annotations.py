"""The annotation sidecar: what is written is read, interrupted work goes on, and damage is always noticed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pixelvla_review.store import REJECTED
from pycocotools import mask as coco

from pixelvla_core.annotate import filters
from pixelvla_core.annotations import oracle
from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.annotations.episodes import EPISODE_SCHEMA
from pixelvla_core.annotations.reader import Sidecar, read_manifest, read_shard
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import ABSENT, SCHEMA, STATUSES, Annotation, Header
from pixelvla_core.annotations.validate import validate
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.errors import DataError, UserError
from pixelvla_core.files import sha256, write_text
from pixelvla_core.prompts import Line, Point

HEADER = Header(dataset="me/cups", fingerprint="ab" * 32, camera="front", tools={"sam2": {"threshold": 0.5}})
EPISODES, FRAMES, SIZE = 7, 6, 64


def disk(row: float, column: float, radius: float = 9.0, size: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def annotation(episode: int, frame: int, **changes) -> Annotation:
    rng = np.random.default_rng([episode, frame])
    mask = disk(20 + episode, 20 + 2 * frame)
    facts = {
        "mask": Rle.encode(mask),
        "box": derive_prompt(mask, "box", rng),
        "points": (derive_prompt(mask, "point", rng), Point(0.99, 0.99, positive=False)),
        "lines": (derive_prompt(mask, "line", rng),),
        "score": 0.75,
        "target": "red cup",
        "source": "sam2",
    }
    return Annotation(episode=episode, frame=frame, camera="front", **(facts | changes))


def rows(shard) -> list[Annotation]:
    return [annotation(episode, frame) for episode in shard for frame in range(FRAMES)]


@pytest.fixture
def sidecar(tmp_path) -> Path:
    writer = SidecarWriter(tmp_path / "sidecar", HEADER, range(EPISODES), episodes_per_shard=3)
    for shard in writer.missing():
        writer.write(shard, rows(shard))
    return writer.finish()


def opened(folder: Path) -> Sidecar:
    return Sidecar(folder, cache=folder.parent / "cache")


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))))
@settings(deadline=None)
def test_run_lengths_give_the_mask_back(mask):
    rle = Rle.encode(mask)
    rle.check()
    np.testing.assert_array_equal(rle.decode(), mask)
    assert rle.area == mask.sum()


def test_run_lengths_are_cocos_own():
    mask = disk(30, 30)
    theirs = coco.decode({"size": [SIZE, SIZE], "counts": Rle.encode(mask).counts})
    np.testing.assert_array_equal(theirs, mask)


@given(hnp.arrays(np.bool_, (17, 13)), st.data())
@settings(deadline=None)
def test_damaged_run_lengths_are_refused_or_still_a_whole_mask(mask, data):
    counts = bytearray(Rle.encode(mask).counts)
    place = data.draw(st.integers(0, len(counts) - 1))
    counts[place] = data.draw(st.integers(0, 255))
    damaged = Rle(17, 13, bytes(counts))
    try:
        damaged.check()
    except DataError:
        return
    assert damaged.decode().shape == (17, 13)


@pytest.mark.parametrize("counts", [b"", b"1", b"Z", b"\x01", b"oooo"])
def test_nonsense_run_lengths_are_refused(counts):
    with pytest.raises(DataError):
        Rle(17, 13, counts).check()


def test_every_row_comes_back(sidecar):
    reader = opened(sidecar)
    assert len(reader) == EPISODES * FRAMES
    for episode in range(EPISODES):
        for frame in range(FRAMES):
            (found,) = reader.find(episode, frame)
            wanted = annotation(episode, frame)
            assert found.mask == wanted.mask
            assert (found.target, found.status, found.source, found.score) == ("red cup", "ok", "sam2", 0.75)
            assert found.box.x0 == pytest.approx(wanted.box.x0, abs=1e-6)
            assert [point.positive for point in found.points] == [True, False]
            np.testing.assert_allclose(found.lines[0].vertices, wanted.lines[0].vertices, atol=1e-6)
            row = reader.rows_of(np.array([episode]), np.array([frame]))[0]
            np.testing.assert_array_equal(reader.mask(row), wanted.mask.decode())


def test_frames_without_rows_are_told(sidecar):
    reader = opened(sidecar)
    found = reader.rows_of(np.array([0, EPISODES, 0, 2]), np.array([FRAMES, 0, 0, 1]))
    assert (found >= 0).tolist() == [False, False, True, True]
    assert reader.find(0, FRAMES) == []
    assert (reader.rows_of(np.array([0]), np.array([0]), instance=1) == -1).all()


def test_several_objects_on_a_frame(tmp_path):
    writer = SidecarWriter(tmp_path / "s", HEADER, [4])
    bowl = annotation(4, 0, instance=1, target="bowl")
    gone = annotation(4, 1, mask=None, box=None, points=(), lines=(), status=ABSENT)
    writer.write((4,), [bowl, gone, annotation(4, 0)])
    reader = opened(writer.finish())
    assert [row.target for row in reader.find(4, 0)] == ["red cup", "bowl"]
    assert reader.statuses().tolist() == ["ok", "ok", "absent"]
    with pytest.raises(DataError, match=r"Row 2 .* has no mask"):
        reader.mask(2)


def test_a_sidecar_may_be_empty(tmp_path):
    reader = opened(SidecarWriter(tmp_path / "s", HEADER, []).finish())
    assert len(reader) == 0
    assert reader.rows_of(np.array([0]), np.array([0])).tolist() == [-1]


def test_the_bytes_do_not_depend_on_interruptions(sidecar, tmp_path):
    folder = tmp_path / "again"
    first = SidecarWriter(folder, HEADER, range(EPISODES), episodes_per_shard=3)
    shard = first.missing()[1]
    first.write(shard, reversed(rows(shard)))
    (folder / "rows" / ".episodes-000000-000002.parquet.1234.partial").write_bytes(b"torn by a crash")
    second = SidecarWriter(folder, HEADER, range(EPISODES), episodes_per_shard=3)
    assert [missing[0] for missing in second.missing()] == [0, 6]
    for shard in second.missing():
        second.write(shard, rows(shard))
    second.finish()
    for path in [*sorted(sidecar.rglob("*.parquet")), sidecar / "manifest.json"]:
        assert (folder / path.relative_to(sidecar)).read_bytes() == path.read_bytes()


def test_a_shard_that_was_damaged_before_the_end_is_written_again(tmp_path):
    writer = SidecarWriter(tmp_path / "s", HEADER, range(4), episodes_per_shard=2)
    for shard in writer.missing():
        writer.write(shard, rows(shard))
    path = next((tmp_path / "s").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    assert SidecarWriter(tmp_path / "s", HEADER, range(4), episodes_per_shard=2).missing() == [(0, 1)]


def test_an_unfinished_sidecar_cannot_be_finished_or_read(tmp_path):
    writer = SidecarWriter(tmp_path / "s", HEADER, range(4), episodes_per_shard=2)
    writer.write((0, 1), rows((0, 1)))
    with pytest.raises(DataError, match="lacks 1 of 2 shards, the first with episodes 2 to 3"):
        writer.finish()
    with pytest.raises(DataError, match="an interrupted annotation has no manifest"):
        opened(tmp_path / "s")


def test_shards_of_another_run_are_not_mixed_in(tmp_path):
    SidecarWriter(tmp_path / "s", HEADER, range(2)).write((0, 1), rows((0, 1)))
    other = Header(dataset="me/cups", fingerprint="cd" * 32, camera="front")
    with pytest.raises(DataError, match="written for another dataset, camera or set of tools"):
        SidecarWriter(tmp_path / "s", other, range(2)).missing()


def test_a_sidecar_goes_nowhere_beside_other_files(tmp_path):
    (tmp_path / "info.json").touch()
    with pytest.raises(UserError, match="is not a sidecar, so it is not overwritten"):
        SidecarWriter(tmp_path, HEADER, range(2))


def test_a_finished_sidecar_is_not_overwritten(sidecar):
    with pytest.raises(DataError, match="already holds a finished sidecar"):
        SidecarWriter(sidecar, HEADER, range(EPISODES))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([annotation(9, 0)], "episode 9"),
        ([annotation(0, 0), annotation(0, 0)], "Two rows"),
        ([Annotation(episode=0, frame=0, camera="wrist", target="x", status=ABSENT)], "camera 'wrist'"),
    ],
)
def test_rows_that_do_not_belong_are_refused(tmp_path, bad, words):
    with pytest.raises(DataError, match=words):
        SidecarWriter(tmp_path / "s", HEADER, range(3)).write((0, 1, 2), bad)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[len(content) // 3] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_named(sidecar, how):
    path = sorted(sidecar.rglob("*.parquet"))[1]
    damage(path, how)
    with pytest.raises(DataError, match=path.name):
        opened(sidecar)
    (problem,) = [line for line in validate(sidecar) if path.name in line]
    assert ("missing" if how == "missing" else "damaged") in problem


def test_every_flipped_byte_of_a_shard_is_noticed(sidecar):
    path = sorted(sidecar.rglob("*.parquet"))[0]
    content = path.read_bytes()
    entry = read_manifest(sidecar)["files"][0]
    for place in np.random.default_rng(0).integers(0, len(content), 100):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged"):
            read_shard(sidecar, entry)
    path.write_bytes(content)
    assert validate(sidecar) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "format and version"),
        ('{"format": "pixelvla-annotations", "version": 9}', "9"),
        (
            '{"format": "pixelvla-annotations", "version": 1, "camera": 3}',
            r"no dataset \(str\) .* and no camera \(str\)",
        ),
    ],
)
def test_a_manifest_that_is_none_is_refused(sidecar, content, words):
    write_text(sidecar / "manifest.json", content)
    with pytest.raises(DataError, match=words):
        opened(sidecar)


def test_a_manifest_whose_files_lack_a_checksum_is_refused(sidecar):
    manifest = read_manifest(sidecar)
    del manifest["files"][0]["sha256"]
    write_text(sidecar / "manifest.json", json.dumps(manifest))
    with pytest.raises(DataError, match=r"no sha256 \(str\)"):
        opened(sidecar)


def _agreed(folder: Path, path: Path) -> None:
    """Let the manifest agree with a file that another tool wrote."""
    manifest = read_manifest(folder)
    for entry in manifest["files"]:
        if entry["path"] == path.relative_to(folder).as_posix():
            entry |= {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_text(folder / "manifest.json", json.dumps(manifest))


def test_files_that_another_tool_wrote_wrongly_are_refused_in_words(sidecar):
    path = sorted(sidecar.rglob("*.parquet"))[0]
    table = pq.read_table(path)
    wrong = {
        "frame": (pa.array(["one"] * len(table)), "another type than .* 'one'"),
        "score": (pa.nulls(len(table), pa.float32()), "another type than .*score"),
    }
    for name, (column, words) in wrong.items():
        pq.write_table(table.set_column(table.column_names.index(name), name, column), path)
        _agreed(sidecar, path)
        with pytest.raises(DataError, match=words):
            opened(sidecar).row(0)
    pq.write_table(table.drop_columns(["source"]), path)
    _agreed(sidecar, path)
    with pytest.raises(DataError, match="lacks the columns source"):
        opened(sidecar)
    path.write_bytes(b"no parquet at all")
    _agreed(sidecar, path)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        opened(sidecar)
    assert any("cannot be read as Parquet" in line for line in validate(sidecar))


@pytest.mark.parametrize(("name", "value"), [("box", [0.1, 0.2]), ("lines", [[0.1, 0.2, 0.3]]), ("points", [[0.5]])])
def test_a_row_whose_values_another_tool_cut_short_is_refused_in_words(sidecar, name, value):
    path = sorted(sidecar.rglob("*.parquet"))[0]
    rows = pq.read_table(path).to_pylist()
    rows[0][name] = value
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    _agreed(sidecar, path)
    with pytest.raises(DataError, match=r"Row 0 of .* damaged values"):
        opened(sidecar).row(0)


def test_another_dataset_is_refused(sidecar):
    opened(sidecar).check_dataset(HEADER.fingerprint, "me/cups")
    with pytest.raises(DataError, match="the data changed, or it is another dataset"):
        opened(sidecar).check_dataset("cd" * 32, "me/cups")
    assert any("the data changed" in line for line in validate(sidecar, fingerprint="cd" * 32))


def test_a_valid_sidecar_has_no_problems(sidecar):
    assert validate(sidecar, fingerprint=HEADER.fingerprint, lengths=[FRAMES] * EPISODES) == []


def test_rows_without_a_frame_are_found(sidecar):
    problems = validate(sidecar, lengths=[FRAMES] * (EPISODES - 1) + [FRAMES - 1])
    assert len(problems) == 1
    assert "(episode 6, frame 5, instance 0): the dataset has no such frame" in problems[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": None}, "status 'ok' without a mask"),
        ({"status": "absent"}, "status 'absent' with a mask"),
        ({"status": "okay"}, "Did you mean 'ok'"),
        ({"score": 1.5}, "score 1.5"),
        ({"mask": Rle.encode(np.zeros((8, 8), bool))}, "the mask is empty"),
        ({"mask": Rle(SIZE, SIZE, b"04")}, "run lengths"),
        ({"box": derive_prompt(disk(50, 50), "box", np.random.default_rng(0))}, "does not enclose"),
        ({"points": (Point(0.9, 0.9),)}, "is outside the mask"),
        ({"points": (Point(20.5 / SIZE, 20.5 / SIZE, positive=False),)}, "is inside the mask"),
        ({"lines": (Line(((0.9, 0.9), (0.8, 0.9))),)}, "leaves the mask"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changes, words):
    writer = SidecarWriter(tmp_path / "s", HEADER, [0])
    writer.write((0,), [annotation(0, 0, **changes)])
    (problem,) = validate(writer.finish())
    assert words in problem
    assert "episode 0, frame 0" in problem


def test_values_outside_the_image_are_named(sidecar):
    path = sorted(sidecar.rglob("*.parquet"))[0]
    table = pq.read_table(path).to_pylist()
    table[4]["box"] = [0.1, 0.1, 7.0, 0.2]
    assert any("row 4" in line and "7.0" in line for line in _rewritten(sidecar, path, table))


def test_files_that_the_manifest_does_not_list_are_named(sidecar):
    extra = sidecar / "rows" / "extra.parquet"
    extra.write_bytes(b"")
    assert validate(sidecar) == ["rows/extra.parquet: not in the manifest"]


def _rewritten(folder: Path, path: Path, table: list[dict]) -> list[str]:
    """Problems after another tool wrote a file, with a manifest that agrees with it."""
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), path)
    _agreed(folder, path)
    return validate(folder)


def test_rows_out_of_order_are_refused(sidecar):
    path = sorted(sidecar.rglob("*.parquet"))[0]
    problems = _rewritten(sidecar, path, pq.read_table(path).to_pylist()[::-1])
    assert "not in the order" in problems[0]
    with pytest.raises(DataError, match="not in the order"):
        opened(sidecar)


def test_indices_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot hold"):
        SidecarWriter(tmp_path / "s", HEADER, [0]).write((0,), [annotation(0, 0, instance=1 << 15)])


def test_a_sidecar_written_by_another_tool_after_the_document(tmp_path):
    """Nothing but pyarrow, json, hashlib and pycocotools, and what docs/annotations.md says."""
    import hashlib

    import pyarrow as pa

    mask = disk(20, 30)
    counts = coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    row = {"episode": 0, "frame": 3, "camera": "front", "instance": 0, "target": "cup", "score": 0.5, "status": "ok"}
    row |= {"mask_height": SIZE, "mask_width": SIZE, "mask_counts": counts, "source": "mine", "box": None}
    row |= {"points": [[30.5 / SIZE, 20.5 / SIZE, 1.0]], "lines": [[0.45, 0.33, 0.5, 0.33]]}
    path = tmp_path / "s" / "rows" / "all.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), path, compression="snappy")
    content = path.read_bytes()
    file = {"path": "rows/all.parquet", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = {"format": "pixelvla-annotations", "version": 1, "dataset": "me/cups", "revision": "", "tools": {}}
    manifest |= {"fingerprint": "ab" * 32, "camera": "front", "counts": {"episodes": 1, "rows": 1, "ok": 1}}
    manifest |= {"files": [file | {"rows": 1, "episodes": [0, 0]}]}
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(manifest))
    assert validate(tmp_path / "s") == []
    np.testing.assert_array_equal(opened(tmp_path / "s").mask(0), mask)


def test_the_document_lists_every_column_and_status():
    text = (Path(__file__).parents[1] / "docs" / "annotations.md").read_text(encoding="utf-8")
    assert [name for name in STATUSES if f"`{name}`" not in text] == []
    assert _first_cells("Rows") == SCHEMA.names


def _first_cells(title: str) -> list[str]:
    """What the tables of one section of the document are about, row by row."""
    text = (Path(__file__).parents[1] / "docs" / "annotations.md").read_text(encoding="utf-8")
    section = text.partition(f"### {title}\n")[2].partition("\n#")[0]
    cells = (line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_document_lists_the_columns_of_episodes_and_every_reason():
    reasons = [value for name, value in vars(filters).items() if name.isupper()]
    assert _first_cells("episodes.parquet") == [*EPISODE_SCHEMA.names, *reasons, REJECTED]


def stream(path: Path, lengths: list[int], camera: str = "observation.images.front") -> Path:
    lines = []
    for episode, length in enumerate(lengths):
        masks = [Rle.encode(disk(20 + episode, 20 + 2 * frame)).counts.decode() for frame in range(length)]
        masks[-1] = None
        line = {"episode": episode, "camera": camera, "size": [SIZE, SIZE], "target": "cup", "target_masks": masks}
        line |= {"reference": "bowl", "reference_masks": masks[::-1]} if episode else {"reference_masks": None}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    return path


def annotate(masks: Path, out: Path, lengths: list[int], **changes) -> Path:
    facts = {"dataset": "me/cups", "fingerprint": "ab" * 32, "camera": "front", "lengths": lengths}
    return oracle.annotate(masks, out, **(facts | changes))


def test_a_simulators_masks_become_a_valid_sidecar(tmp_path):
    lengths = [5, 3, 8]
    folder = annotate(stream(tmp_path / "m.jsonl", lengths), tmp_path / "s", lengths, episodes_per_shard=2)
    assert validate(folder, fingerprint="ab" * 32, lengths=lengths) == []
    reader = opened(folder)
    assert reader.manifest["counts"] == {"episodes": 3, "rows": 27, "ok": 22, "absent": 5}
    assert [row.target for row in reader.find(1, 1)] == ["cup", "bowl"]
    np.testing.assert_array_equal(reader.find(2, 3)[0].mask.decode(), disk(22, 26))
    assert reader.find(0, 4)[0].status == ABSENT


def test_the_oracles_prompts_depend_on_the_seed_and_the_episode_alone(tmp_path):
    lengths = [5, 3, 8]
    masks = stream(tmp_path / "m.jsonl", lengths)
    small = opened(annotate(masks, tmp_path / "a", lengths, episodes_per_shard=1))
    whole = opened(annotate(masks, tmp_path / "b", lengths))
    other = opened(annotate(masks, tmp_path / "c", lengths, seed=1))
    assert small.find(2, 3) == whole.find(2, 3)
    assert other.find(2, 3)[0].points != whole.find(2, 3)[0].points


@pytest.mark.parametrize(
    ("lengths", "words"),
    [([5, 4, 8], "3 masks for episode 1, which has 4 frames"), ([5, 3], "episode 2, but the dataset has 2")],
)
def test_masks_of_another_recording_are_refused(tmp_path, lengths, words):
    with pytest.raises(DataError, match=words):
        annotate(stream(tmp_path / "m.jsonl", [5, 3, 8]), tmp_path / "s", lengths)


def test_a_torn_stream_is_refused_with_the_line(tmp_path):
    masks = stream(tmp_path / "m.jsonl", [5, 3, 8])
    masks.write_text(masks.read_text()[:-40])
    with pytest.raises(DataError, match=r"Line 3 of .* is damaged"):
        annotate(masks, tmp_path / "s", [5, 3, 8])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": [64]}, r"size = \[64\]; expected height and width"),
        ({"size": [64, "64"]}, "expected height and width"),
        ({"reference": None, "reference_masks": [None] * 5}, "reference_masks, but reference = None"),
        ({"reference": "bowl", "reference_masks": [None]}, "1 masks in reference_masks; expected 5"),
        ({"reference": "bowl", "reference_masks": 3}, "3 in reference_masks"),
        ({"target_masks": [7] * 5}, "7 in target_masks, frame 0"),
        ({"target_masks": ["é"] * 5}, "frame 0; expected run lengths"),
        ({"target_masks": ["0"] * 5}, "Episode 0, frame 0, 'cup': .* run lengths for 0"),
        ({"target_masks": [Rle.encode(np.zeros((SIZE, SIZE), bool)).counts.decode()] * 5}, "has no pixel"),
    ],
)
def test_a_stream_of_another_tool_is_refused_in_words(tmp_path, changes, words):
    masks = stream(tmp_path / "m.jsonl", [5])
    row = json.loads(masks.read_text(encoding="utf-8"))
    masks.write_text(json.dumps(row | changes) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=words):
        annotate(masks, tmp_path / "s", [5])


def test_a_stream_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no text"):
        annotate(tmp_path / "m.jsonl", tmp_path / "s", [5])


def test_a_camera_may_have_a_dot_in_its_name(tmp_path):
    masks = stream(tmp_path / "m.jsonl", [5], "observation.images.wrist.left")
    assert validate(annotate(masks, tmp_path / "s", [5], camera="wrist.left")) == []
    with pytest.raises(DataError, match="expected 'left'"):
        annotate(masks, tmp_path / "other", [5], camera="left")


@pytest.mark.parametrize("camera", ["observation.images.wrist"])
def test_a_stream_of_another_camera_is_refused(tmp_path, camera):
    with pytest.raises(DataError, match="expected 'front'"):
        annotate(stream(tmp_path / "m.jsonl", [5], camera), tmp_path / "s", [5])


def test_a_random_mask_is_read_in_less_than_a_millisecond(tmp_path):
    writer = SidecarWriter(tmp_path / "s", HEADER, range(20))
    masks = [Rle.encode(disk(100, 60 + 4 * frame, 25, 224)) for frame in range(30)]
    made = [
        Annotation(episode=episode, frame=frame, camera="front", target="cup", mask=masks[frame])
        for episode in range(20)
        for frame in range(30)
    ]
    writer.write(tuple(range(20)), made)
    reader = opened(writer.finish())
    picks = np.random.default_rng(0).integers(0, len(reader), 500)
    started = time.process_time()
    for row in picks:
        assert reader.mask(int(row)).shape == (224, 224)
    assert (time.process_time() - started) / len(picks) < 1e-3
