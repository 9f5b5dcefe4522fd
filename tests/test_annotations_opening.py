"""Opening a sidecar: little is read, nothing damaged is returned, and any number of processes may do it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelvla_core.annotations.edit import replace_rows
from pixelvla_core.annotations.index import Index, keys_of, write_index
from pixelvla_core.annotations.reader import Sidecar, read_manifest
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import OK, REVIEW, SCHEMA, Annotation, Header
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.errors import DataError
from pixelvla_core.files import sha256, write_json

EPISODES, FRAMES, FILES = 9, 4, 3


def mask(episode: int, frame: int) -> np.ndarray:
    found = np.zeros((50, 60), bool)
    found[episode : episode + 10, frame : frame + 15] = True
    return found


def row(episode: int, frame: int) -> Annotation:
    facts = {"episode": episode, "frame": frame, "camera": "front", "target": "cup"}
    return Annotation(**facts, mask=Rle.encode(mask(episode, frame)), status=REVIEW if episode % 2 else OK)


@pytest.fixture
def folder(tmp_path) -> Path:
    header = Header(dataset="me/cups", fingerprint="ab" * 32, camera="front")
    writer = SidecarWriter(tmp_path / "sidecar", header, range(EPISODES), episodes_per_shard=EPISODES // FILES)
    for shard in writer.missing():
        writer.write(shard, [row(episode, frame) for episode in shard for frame in range(FRAMES)])
    return writer.finish()


def opened(folder: Path) -> Sidecar:
    return Sidecar(folder, cache=folder.parent / "cache")


def cached(folder: Path, ending: str) -> set[str]:
    return {path.name for path in (folder.parent / "cache" / "annotations").glob(f"*{ending}")}


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def rewrite(folder: Path, **changes) -> Path:
    """Change values of the first file's first row, and let the manifest agree."""
    manifest = read_manifest(folder)
    entry = manifest["files"][0]
    path = folder / entry["path"]
    rows = pq.read_table(path).to_pylist()
    rows[0] |= changes
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    entry |= {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_json(folder / "manifest.json", manifest)
    return path


def test_a_file_is_copied_when_one_of_its_rows_is_asked_for(folder):
    sidecar = opened(folder)
    assert cached(folder, ".arrow") == set()
    sidecar.find(4, 0)
    assert cached(folder, ".arrow") == {f"{read_manifest(folder)['files'][1]['sha256']}.arrow"}
    again = opened(folder)
    for episode in range(EPISODES):
        for frame in range(FRAMES):
            assert again.find(episode, frame) == [row(episode, frame)]
    assert len(cached(folder, ".arrow")) == FILES
    assert len(cached(folder, ".index")) == 1


def test_a_file_that_is_damaged_after_the_opening_is_refused_before_its_rows_are_used(folder):
    sidecar = opened(folder)
    path = folder / read_manifest(folder)["files"][1]["path"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for one in (sidecar, opened(folder)):
        assert len(one.find(0, 0)) == len(one.find(8, 0)) == 1
        with pytest.raises(DataError, match=rf"^{path} is damaged"):
            one.find(4, 0)


def test_a_sidecar_that_is_edited_after_the_opening_says_so(folder):
    sidecar = opened(folder)
    assert sidecar.find(8, 0)
    replace_rows(folder, 4, [replace(row(4, 0), target="mug")])
    with pytest.raises(DataError, match=r"was changed after it was opened.*000005.parquet is no longer"):
        sidecar.find(4, 0)
    assert [found.target for found in opened(folder).find(4, 0)] == ["mug"]
    assert sidecar.find(8, 1) == [row(8, 1)]


def test_usable_rows_are_known_without_their_masks(folder):
    sidecar = opened(folder)
    np.testing.assert_array_equal(sidecar.usable(), sidecar.statuses() == "ok")
    assert sidecar.usable().sum() == 5 * FRAMES
    assert cached(folder, ".arrow") == set()


def test_reading_keeps_no_file_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    sidecar = opened(folder)
    masks = [sidecar.mask(row) for row in np.flatnonzero(sidecar.usable())]
    assert len(masks) == 5 * FRAMES
    assert len(cached(folder, ".arrow")) == FILES
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # of the mapped index


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "okay"}, "status 'okay'. Did you mean 'ok'"),
        ({"frame": -1}, "frame is -1; it must be from 0 to"),
        ({"episode": 1 << 20}, "episode is 1048576; it must be from 0 to 1048575"),
        ({"frame": 1}, "not in the order"),
        ({"episode": 3}, "not in the order"),
    ],
)
def test_rows_that_an_index_cannot_hold_are_refused(folder, changes, words):
    path = rewrite(folder, **changes)
    with pytest.raises(DataError, match=words) as error:
        opened(folder)
    assert path.name in str(error.value)


def test_files_in_the_wrong_order_are_refused(folder):
    manifest = read_manifest(folder)
    manifest["files"].reverse()
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(DataError, match=r"episodes-000003-000005.parquet are not in the order"):
        opened(folder)


def test_a_changed_file_leaves_the_copies_of_others(folder):
    sidecar = opened(folder)
    assert sidecar.target(0) == "cup"
    assert sidecar.target(len(sidecar) - 1) == "cup"
    rewrite(folder, target="mug")
    changed = opened(folder)
    assert changed.target(0) == "mug"
    assert changed.target(len(changed) - 1) == "cup"
    assert len(cached(folder, ".arrow")) == 3


def test_an_index_gives_places_back(tmp_path):
    columns = {name: SCHEMA.field(name) for name in ("episode", "frame", "instance", "status")}

    def table(episodes: list[int]) -> pa.Table:
        values = [episodes, [7] * len(episodes), [0] * len(episodes), ["review"] * len(episodes)]
        return pa.Table.from_arrays(
            [pa.array(each, field.type) for each, field in zip(values, columns.values(), strict=True)],
            schema=pa.schema(columns.values()),
        )

    parts = ([], [0, 1, 2], [], [5], [])
    write_index(tmp_path / "i", [(tmp_path / str(number), table(part)) for number, part in enumerate(parts)])
    index = Index.load(tmp_path / "i", len(parts))
    assert index.starts.tolist() == [0, 0, 3, 3, 4, 4]
    assert [index.place(row) for row in range(4)] == [(1, 0), (1, 1), (1, 2), (3, 0)]
    assert index.keys.tolist() == keys_of(np.array([0, 1, 2, 5]), np.full(4, 7), 0).tolist()
    assert index.statuses.tolist() == [3] * 4


READ_ALL = """
import hashlib, sys
from pathlib import Path
from pixelvla_core.annotations.reader import Sidecar
sidecar = Sidecar(Path(sys.argv[1]), cache=Path(sys.argv[2]))
print(hashlib.sha256("".join(repr(sidecar.row(row)) for row in range(len(sidecar))).encode()).hexdigest())
print(*sorted({"torch", "pandas", "transformers", "lerobot"} & sys.modules.keys()))
"""


def test_processes_that_open_it_at_once_read_the_same_and_import_nothing_heavy(folder):
    processes = [python(READ_ALL, folder, folder.parent / "cache") for _ in range(3)]
    said = {process.communicate()[0] for process in processes}
    assert len(said) == 1
    digest, heavy = said.pop().splitlines()
    assert len(digest) == 64
    assert heavy == ""
    assert cached(folder, "partial") == set()


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from pixelvla_core.annotations import index, reader
last = Path(sys.argv[3])
write = pa.RecordBatchFileWriter.write_table
def die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
def tables(read):
    for number, table in enumerate(read):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield table
if last.name == "index":
    indexed = reader.Sidecar._indexed
    reader.Sidecar._indexed = lambda self: tables(indexed(self))
else:
    pa.RecordBatchFileWriter.write_table = die
reader.Sidecar(Path(sys.argv[1]), cache=Path(sys.argv[2])).row(0)
"""


@pytest.mark.parametrize("moment", ["index", "copy"])
def test_a_process_that_is_killed_while_it_makes_them_does_no_harm(folder, moment):
    process = python(KILLED, folder, folder.parent / "cache", moment)
    process.communicate()
    assert process.returncode == -9
    assert len(cached(folder, "partial")) == 1
    assert cached(folder, ".arrow") == set()
    sidecar = opened(folder)
    assert [sidecar.row(row).frame for row in range(len(sidecar))] == list(range(FRAMES)) * EPISODES
