"""``pixelvla annotations``: statistics, notes of episodes, merging, COCO, and the hub."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pixelvla_core.annotations.coco import export_coco
from pixelvla_core.annotations.episodes import EpisodeNote, read_episodes, write_episodes
from pixelvla_core.annotations.merge import merge
from pixelvla_core.annotations.push import push
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.annotations.schema import FAILED, OK, REVIEW, Annotation, Header
from pixelvla_core.annotations.stats import stats
from pixelvla_core.annotations.validate import validate
from pixelvla_core.annotations.writer import SidecarWriter
from pixelvla_core.cli.main import main
from pixelvla_core.errors import DataError

FRAMES, SIZE = 4, 100
PAGE = "https://huggingface.co/datasets/me/cups"


def mask(episode: int, frame: int) -> np.ndarray:
    found = np.zeros((SIZE, SIZE), bool)
    found[episode : episode + 10, frame : frame + 15] = True
    return found


def row(episode: int, frame: int) -> Annotation:
    status = (OK, OK, REVIEW, FAILED)[episode % 4]
    return Annotation(
        episode=episode,
        frame=frame,
        camera="front",
        target=("cup", "bowl")[episode % 2],
        mask=None if status == FAILED else Rle.encode(mask(episode, frame)),
        status=status,
        score=0.5,
    )


def note(episode: int) -> EpisodeNote:
    reason = ("", "", "tiny: 3 pixels", "nothing detected")[episode % 4]
    return EpisodeNote(episode=episode, kept=not reason, reason=reason, score=0.5, region=[0, 0, 1, 1])


def write(folder: Path, episodes, notes=True, tools=None, **changes) -> Path:
    facts = {"dataset": "me/cups", "fingerprint": "ab" * 32, "camera": "front", "tools": tools or {"a": 1}} | changes
    writer = SidecarWriter(folder, Header(**facts), episodes, episodes_per_shard=3)
    for shard in writer.missing():
        writer.write(shard, [row(episode, frame) for episode in shard for frame in range(FRAMES)])
    return writer.finish(episodes=[note(episode) for episode in episodes] if notes else ())


def test_statistics(tmp_path):
    found = stats(write(tmp_path / "a", range(8)))
    assert (found.episodes, found.kept, found.frames, found.masked) == (8, 4, 32, 16)
    assert found.reasons == {"tiny": 2, "nothing detected": 2}
    assert found.statuses == {"ok": 16, "review": 8, "failed": 8}
    assert sum(found.areas) == found.areas[5] == 16  # 150 of 10,000 pixels: between 1 and 2 %
    assert "4 discarded (50.0%)" in str(found)


def test_statistics_without_notes_count_what_is_usable(tmp_path):
    found = stats(write(tmp_path / "a", range(8), notes=False))
    assert (found.episodes, found.kept, found.reasons) == (8, 4, {})


def test_the_histogram_is_drawn(tmp_path, capsys):
    folder = write(tmp_path / "a", range(4))
    assert main(["annotations", "stats", str(folder), "--picture", str(tmp_path / "h.png")]) == 0
    assert "1-2 %" in capsys.readouterr().out
    picture = np.array(Image.open(tmp_path / "h.png").convert("RGB"))
    bars = (picture == (0x44, 0x77, 0xAA)).all(-1)
    assert bars.sum(0).max() > 200  # the one full bin reaches the top


def test_a_sidecar_with_notes_is_valid(tmp_path):
    assert validate(write(tmp_path / "a", range(8)), lengths=[FRAMES] * 8) == []


def changed(changes: dict) -> list[EpisodeNote]:
    return [EpisodeNote(**(vars(note(episode)) | changes.get(episode, {}))) for episode in range(4)]


@pytest.mark.parametrize(
    ("notes", "problem"),
    [
        (changed({0: {"kept": False, "reason": "tiny"}}), "discarded, but it has rows with status 'ok'"),
        (changed({2: {"kept": True, "reason": ""}}), "kept, but no row is 'ok'"),
        (changed({0: {"reason": "tiny"}}), "kept, but with the reason 'tiny'"),
        (changed({3: {"reason": ""}}), "discarded without a reason"),
        (changed({1: {"episode": 0}}), "episode 0 is there 2 times"),
        (changed({})[1:], "nothing about episode 0"),
        (changed({0: {"score": 2.0}}), "score 2.0"),
    ],
)
def test_wrong_notes_are_found(tmp_path, notes, problem):
    folder = write(tmp_path / "a", range(4))
    write_episodes(folder, notes)
    found = validate(folder, lengths=[FRAMES] * 4)
    assert any(problem in each for each in found)
    assert any("checksum" in each for each in found)


def test_missing_and_damaged_notes_are_found(tmp_path):
    folder = write(tmp_path / "a", range(4))
    path = folder / "episodes.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert any("damaged" in each for each in validate(folder))
    path.unlink()
    assert validate(folder) == ["episodes.parquet: missing, though the manifest lists it"]


@pytest.mark.parametrize("halves", [(range(6), range(6, 12)), (range(0, 12, 2), range(1, 12, 2))])
def test_merged_sidecars_are_the_whole(tmp_path, halves):
    parts = [write(tmp_path / str(number), half) for number, half in enumerate(halves)]
    both = merge(parts, tmp_path / "both")
    whole = write(tmp_path / "whole", range(12))
    assert validate(both, lengths=[FRAMES] * 12) == []
    assert read_episodes(both) == read_episodes(whole)
    ours, theirs = (Sidecar(folder, cache=tmp_path / "cache") for folder in (both, whole))
    assert [ours.row(place) for place in range(len(ours))] == [theirs.row(place) for place in range(len(theirs))]
    assert ours.manifest["counts"] == theirs.manifest["counts"]
    assert ours.manifest["tools"] == {"a": 1}


def test_merging_keeps_the_tools_of_each(tmp_path):
    parts = [write(tmp_path / "a", range(3)), write(tmp_path / "b", range(3, 6), tools={"b": 2})]
    assert main(["annotations", "merge", *map(str, parts), "--out", str(tmp_path / "both")]) == 0
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert [each["tools"] for each in manifest["tools"]["merged"]] == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": range(2, 5)}, "Episodes 2 are in both"),
        ({"fingerprint": "cd" * 32}, "differ in fingerprint"),
        ({"camera": "front", "dataset": "me/other"}, "differ in dataset"),
        ({"notes": False}, "has no episodes.parquet"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(tmp_path, changes, words):
    one, two = write(tmp_path / "a", range(3)), write(tmp_path / "b", **({"episodes": range(3, 6)} | changes))
    with pytest.raises(DataError, match=words):
        merge([one, two], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_coco_reads_the_export(tmp_path, capsys):
    assert export_coco(write(tmp_path / "a", range(8)), tmp_path / "a.json") == 16
    found = COCO(str(tmp_path / "a.json"))
    assert [each["name"] for each in found.loadCats(found.getCatIds())] == ["cup", "bowl"]
    assert len(found.getImgIds()) == len(found.getAnnIds()) == 16
    for annotation in found.loadAnns(found.getAnnIds()):
        image = found.imgs[annotation["image_id"]]
        wanted = mask(image["episode"], image["frame"])
        np.testing.assert_array_equal(found.annToMask(annotation), wanted)
        assert (annotation["area"], annotation["bbox"][2:]) == (150, [15, 10])
        assert found.cats[annotation["category_id"]]["name"] == ("cup", "bowl")[image["episode"] % 2]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload talks to; keeps what it was sent."""

    sent: dict[str, list]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        lines = [json.loads(line) for line in body.splitlines()]
        self.sent.setdefault(self.path, []).extend(lines)
        if "/preupload/" in self.path:
            named = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in lines[0]["files"]
            ]
            return self.answer({"files": named})
        return self.answer({"url": PAGE, "commitUrl": f"{PAGE}/commit/1", "commitOid": "1"})

    def do_GET(self):
        self.answer({"id": "me/cups", "sha": "0" * 40, "siblings": []})

    def answer(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    handler = type("Handler", (Hub,), {"sent": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield handler.sent
    server.shutdown()


def use(monkeypatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_test")


def test_pushing_uploads_the_sidecar_beside_the_data(tmp_path, hub):
    folder = write(tmp_path / "a", range(4))
    (folder / "steps").mkdir()
    (folder / "steps" / "clip.parquet").write_bytes(b"left by a step")
    assert push(folder, "me/cups", private=True) == f"{PAGE}/commit/1"
    (created,) = hub["/api/repos/create"]
    assert created["type"] == "dataset"
    assert created.get("private") or created.get("visibility") == "private"
    (commit,) = (lines for path, lines in hub.items() if "/commit/" in path)
    names = {each["value"]["path"] for each in commit if each["key"] == "file"}
    files = ["manifest.json", "episodes.parquet", "rows/episodes-000000-000002.parquet"]
    assert names == {f"annotations/front/{name}" for name in [*files, "rows/episodes-000003-000003.parquet"]}


def test_a_hub_out_of_reach_is_one_clear_error(tmp_path, monkeypatch, capsys):
    use(monkeypatch, "http://127.0.0.1:9")
    folder = write(tmp_path / "a", range(2))
    assert main(["annotations", "push", str(folder), "--repo-id", "me/cups"]) == 2
    error = capsys.readouterr().err
    assert "could not be pushed to me/cups" in error
    assert "Traceback" not in error
