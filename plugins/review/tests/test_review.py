"""Reviewing a sidecar of drawn scenes: what is decided, what is saved, who may ask, and what a killed server leaves."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "standins"))

import annotating
import browser
from pixelvla_review.seeds import SEEDS
from pixelvla_review.server import Server
from pixelvla_review.store import APPLIED, LOG, Store
from reviewing import parts

from pixelvla_core import builtin
from pixelvla_core.annotate.run import annotate
from pixelvla_core.annotations.edit import replace_rows
from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import Sidecar, read_manifest
from pixelvla_core.annotations.validate import validate
from pixelvla_core.cli.main import main
from pixelvla_core.errors import DataError, UserError
from pixelvla_core.files import sha256
from pixelvla_core.plugins import PluginManager
from pixelvla_core.recipe import compose

HERE = Path(__file__).parent
STANDINS = HERE.parents[2] / "tests" / "standins"
EPISODES = 8
DISCARDED = 3
"""The episode whose gripper never closes."""
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")


@pytest.fixture
def sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    exact = [word for key in MODELS for word in (f"{key}.name=exact", f"{key}.options.episodes={EPISODES}")]
    scenes = ["recording.name=scenes", f"recording.options.episodes={EPISODES}"]
    never = [f"recording.options.never=[{DISCARDED}]", "episodes_per_shard=3"]
    registry = PluginManager([builtin, annotating]).registry
    return annotate("scenes", tmp_path / "sidecar", [*scenes, *exact, *never], registry)


@pytest.fixture
def store(sidecar: Path) -> Store:
    return Store(sidecar, "ana")


Ask = Callable[..., Awaitable[tuple[int, object]]]


def serving(store: Store, talk: Callable[[TestClient, Ask], Awaitable[None]]) -> None:
    """Talk to a server as its page does."""

    async def run() -> None:
        server = Server(store, parts(EPISODES))
        async with TestClient(TestServer(server.app(), host="127.0.0.1")) as client:

            async def ask(path: str, data: object = None, **headers: str) -> tuple[int, object]:
                sent = {"X-Token": server.token, **headers}
                reply = await (
                    client.get(path, headers=sent) if data is None else client.post(path, json=data, headers=sent)
                )
                return reply.status, await reply.json()

            await talk(client, ask)

    asyncio.run(run())


def statuses(sidecar: Path, episode: int) -> set[str]:
    found = Sidecar(sidecar)
    return {row.status for frame in range(annotating.LENGTH) for row in found.find(episode, frame)}


def test_rejected_episodes_leave_training_and_kept_ones_come_back(store: Store, sidecar: Path) -> None:
    store.reject(1)
    assert statuses(sidecar, 1) == {"review"}
    note = read_episodes(sidecar)[1]
    assert (note.kept, note.reason) == (False, "rejected")
    assert validate(sidecar) == []
    store.keep(1)
    assert statuses(sidecar, 1) == {"ok"}
    assert read_episodes(sidecar)[1].kept
    assert statuses(sidecar, 0) == {"ok"}
    assert validate(sidecar) == []


def test_the_least_sure_come_first(store: Store) -> None:
    scores = [note.score for note in store.order()]
    assert scores == sorted(scores)
    assert store.order()[0].episode == DISCARDED


def test_undoing_gives_back_the_same_rows_and_notes(store: Store, sidecar: Path) -> None:
    rows, notes = [store.rows(episode) for episode in range(EPISODES)], read_episodes(sidecar)
    store.reject(2)
    store.reject(5)
    assert store.undo().episode == 5
    assert store.undo().episode == 2
    assert store.undo() is None
    assert [store.rows(episode) for episode in range(EPISODES)] == rows
    assert read_episodes(sidecar) == notes
    assert [json.loads(line)["what"] for line in (sidecar / LOG).read_text().splitlines()] == [
        "reject",
        "reject",
        "undo",
        "undo",
    ]


def test_the_log_says_who_changed_what_when(store: Store, sidecar: Path) -> None:
    store.reject(4)
    (line,) = map(json.loads, (sidecar / LOG).read_text().splitlines())
    assert (line["who"], line["episode"], line["what"]) == ("ana", 4, "reject")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["when"])
    assert line["from"]["kept"]
    assert line["to"]["reason"] == "rejected"


@pytest.mark.parametrize("logged", [True, False])
def test_a_decision_that_was_only_logged_is_applied_by_the_next_start(logged, store, sidecar, monkeypatch) -> None:
    """Everything up to the manifest's renaming may have happened when a process dies."""
    store.reject(6)
    before = {path: path.read_bytes() for path in sidecar.rglob("*") if path.is_file()}
    target = "pixelvla_review.store.replace_rows" if logged else "pixelvla_core.annotations.edit.write_text"
    with monkeypatch.context() as patch:
        patch.setattr(target, _dies)
        with pytest.raises(KeyboardInterrupt):
            store.reject(7)
    assert all(problem.endswith("not in the manifest") for problem in validate(sidecar)), "at most a file too many"
    assert statuses(sidecar, 7) == {"ok"}
    assert (sidecar / "manifest.json").read_bytes() == before[sidecar / "manifest.json"]
    fresh = Store(sidecar, "ben")
    assert fresh.replayed == 1
    assert fresh.decided() == {6: "reject", 7: "reject"}
    assert statuses(sidecar, 7) == {"review"}
    assert validate(sidecar) == []
    assert read_manifest(sidecar)[APPLIED] == 2


def _dies(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_line_that_was_cut_off_counts_as_never_written(store: Store, sidecar: Path) -> None:
    store.reject(0)
    with (sidecar / LOG).open("a", encoding="utf-8") as file:
        file.write('{"number": 1, "epis')
    fresh = Store(sidecar, "ben")
    assert len(fresh.log) == 1
    fresh.keep(0)
    assert len(Store(sidecar, "ben").log) == 2


def test_annotating_again_leaves_decisions_alone(store: Store, sidecar: Path, capsys: pytest.CaptureFixture) -> None:
    store.reject(1)
    before = sha256(sidecar / "manifest.json")
    registry = PluginManager([builtin, annotating]).registry
    recipe = str(sidecar / "recipe.yaml")
    annotate("scenes", sidecar, [recipe], registry)
    assert "is finished" in capsys.readouterr().out
    assert sha256(sidecar / "manifest.json") == before


def test_no_file_of_an_earlier_state_stays(store: Store, sidecar: Path) -> None:
    count = len(list(sidecar.rglob("*.parquet")))
    for episode in (0, 1, 2, 0):
        store.reject(episode)
    states = list((sidecar / "decisions").glob("*.parquet"))
    assert len(states) == 8
    assert len(list(sidecar.rglob("*.parquet"))) == count + len(states)


def test_rows_of_something_else_are_refused(store: Store, sidecar: Path) -> None:
    with pytest.raises(DataError, match="expected episode 2"):
        replace_rows(sidecar, 2, store.rows(3))
    with pytest.raises(DataError, match="No file of this sidecar is about episode 99"):
        replace_rows(sidecar, 99, [])
    with pytest.raises(DataError, match="Two rows of episode 2"):
        replace_rows(sidecar, 2, store.rows(2) * 2)


def test_the_page_redraws_through_time(store: Store, sidecar: Path) -> None:
    scenes = annotating.Scenes(EPISODES)

    async def talk(client: TestClient, ask: Ask) -> None:
        status, found = await ask("/api/preview", {"episode": DISCARDED, "points": [[0.5, 0.5, 1]], "box": None})
        assert status == 200
        assert 0 < found["share"] < 0.1
        status, line = await ask("/api/decide", {"episode": 2, "what": "redraw", "box": [0.3, 0.3, 0.8, 0.9]})
        assert (status, line[:4]) == (200, [2, 1.0, True, ""])
        status, listed = await ask("/api/episodes")
        assert {line[0] for line in listed["episodes"] if line[5] == "redraw"} == {2}

    serving(store, talk)
    found = Sidecar(sidecar)
    for frame in range(annotating.LENGTH):
        (row,) = found.find(2, frame)
        assert row.source == "review"
        np.testing.assert_array_equal(row.mask.decode(), scenes.square(2, frame))
    assert validate(sidecar) == []


def test_an_episode_without_a_mask_can_be_redrawn_and_not_kept(store: Store, sidecar: Path) -> None:
    async def talk(client: TestClient, ask: Ask) -> None:
        status, found = await ask("/api/decide", {"episode": DISCARDED, "what": "keep"})
        assert status == 422
        assert "has no mask to keep" in found["error"]
        status, _ = await ask("/api/decide", {"episode": DISCARDED, "what": "redraw", "points": [[0.5, 0.5, 1]]})
        assert status == 200

    serving(store, talk)
    assert read_episodes(sidecar)[DISCARDED].kept
    assert validate(sidecar) == []


WRONG = [
    ("/api/decide", {"episode": 1, "what": "shred"}, "expected keep, reject or redraw"),
    ("/api/decide", {"episode": "one", "what": "keep"}, "expected a number"),
    ("/api/decide", {"episode": 99, "what": "keep"}, "no episode 99"),
    ("/api/decide", [1], "expected a JSON object"),
    ("/api/decide", {"episode": 1, "what": "redraw"}, "Nothing is marked"),
    ("/api/preview", {"episode": 1, "points": [[0.5, 0.5, 0]]}, "Nothing is marked"),
    ("/api/preview", {"episode": 1, "points": [[0.5, 1.5, 1]]}, "in \\[0, 1\\]"),
    ("/api/preview", {"episode": 1, "points": [[True, 0.5, 1]]}, "in \\[0, 1\\]"),
    ("/api/preview", {"episode": 1, "box": [0.9, 0.1, 0.2, 0.5]}, "x0 < x1"),
    ("/api/seeds", {"episode": 1, "point": 3}, "expected \\[x, y\\]"),
    ("/api/seeds", {"episode": 99, "point": [0.1, 0.1]}, "no episode 99"),
    ("/api/frame/1/99", None, "no frame 99"),
    ("/api/tile/99", None, "no episode 99"),
]


def test_bad_requests_are_answered_in_words_and_change_nothing(store: Store, sidecar: Path) -> None:
    before = sha256(sidecar / "manifest.json")

    async def talk(client: TestClient, ask: Ask) -> None:
        for path, data, said in WRONG:
            status, found = await ask(path, data)
            assert status == 422, path
            assert re.search(said, found["error"]), found
        status, _ = await ask("/api/decide", {"episode": 1, "what": "x" * 100_000})
        assert status == 413

    serving(store, talk)
    assert sha256(sidecar / "manifest.json") == before
    assert not (sidecar / LOG).exists()
    assert not (sidecar / SEEDS).exists()


def test_only_the_page_itself_may_ask(store: Store) -> None:
    async def talk(client: TestClient, ask: Ask) -> None:
        for headers in (
            {"X-Token": ""},
            {"X-Token": "guess"},
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
        ):
            status, found = await ask("/api/decide", {"episode": 1, "what": "reject"}, **headers)
            assert status == 403, headers
            assert found["error"]
        status, _ = await ask("/page/..%2Fserver.py")
        assert status == 404
        own = f"http://127.0.0.1:{client.server.port}"
        status, _ = await ask("/api/decide", {"episode": 1, "what": "reject"}, Origin=own)
        assert status == 200

    serving(store, talk)
    assert store.decided() == {1: "reject"}


def test_many_at_once_are_all_decided(store: Store, sidecar: Path) -> None:
    async def talk(client: TestClient, ask: Ask) -> None:
        whats = ["reject", "keep"] * 8
        wanted = [ask("/api/decide", {"episode": 4 + number % 2, "what": what}) for number, what in enumerate(whats)]
        assert {status for status, _ in await asyncio.gather(*wanted)} == {200}

    serving(store, talk)
    lines = [json.loads(line) for line in (sidecar / LOG).read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(16))
    assert validate(sidecar) == []
    assert Store(sidecar, "ben").replayed == 0


def test_a_click_on_the_gripper_becomes_a_layer(store: Store, sidecar: Path) -> None:
    async def talk(client: TestClient, ask: Ask) -> None:
        for point in ([0.25, 0.5], [0.3, 0.5]):
            status, seeds = await ask("/api/seeds", {"episode": 4, "point": point})
            assert status == 200
        assert seeds == [{"episode": 4, "point": [0.3, 0.5]}]

    serving(store, talk)
    recipe = compose(["annotate/default", str(sidecar / SEEDS)], parts=())
    assert recipe.annotate.gripper.name == "video"
    assert recipe.annotate.gripper.options["seeds"] == [{"episode": 4, "point": [0.3, 0.5]}]


def serve_apart(sidecar: Path) -> tuple[subprocess.Popen, str]:
    """A server of its own, and its address."""
    command = [sys.executable, str(HERE / "reviewing.py"), str(sidecar), str(EPISODES)]
    path = os.pathsep.join(filter(None, [str(STANDINS), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PIXELVLA_CACHE": str(sidecar / "cache")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, re.search(r"http://127\.0\.0\.1:\d+/\S+", process.stdout.readline())[0]


def test_a_killed_server_loses_no_decision_that_it_answered(sidecar: Path) -> None:
    process, address = serve_apart(sidecar)
    assert socket.gethostbyname(urlsplit(address).hostname) == "127.0.0.1"
    answered = []

    async def decide() -> None:
        token = parse_qs(urlsplit(address).query)["token"][0]
        async with aiohttp.ClientSession(headers={"X-Token": token}) as session:
            for number in range(10_000):
                body = {"episode": number % EPISODES, "what": "reject"}
                async with session.post(f"{address.partition('/?')[0]}/api/decide", json=body) as reply:
                    assert reply.status == 200
                    answered.append(number % EPISODES)
                if number == 9:
                    asyncio.get_running_loop().call_later(0.02, process.send_signal, signal.SIGKILL)

    try:
        with pytest.raises(aiohttp.ClientError):
            asyncio.run(decide())
        assert process.wait(timeout=10) == -signal.SIGKILL, "it ended before it was killed"
    finally:
        process.kill()
        process.wait()
    assert len(answered) >= 10
    store = Store(sidecar, "ben")
    assert len(answered) <= len(store.log) <= len(answered) + 1
    assert [record["episode"] for record in store.log][: len(answered)] == answered
    assert validate(sidecar) == []


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
def test_a_person_at_the_keyboard(sidecar: Path, tmp_path: Path) -> None:
    """Rejects the first, keeps the second, redraws the third by a click and a box, takes the last of these back."""
    process, address = serve_apart(sidecar)
    order = [note.episode for note in Store(sidecar, "ben").order()]

    async def sit_down() -> None:
        async with browser.browse(address, tmp_path / "profile") as page:
            await page.until("document.querySelectorAll('.tile').length > 3")
            await page.press("r")
            await page.until("document.querySelectorAll('.tile.reject').length == 1")
            await page.press("k")
            await page.until("document.querySelectorAll('.tile.keep').length == 1")
            await page.press("d")
            await page.until(
                "!document.getElementById('drawing').hidden && document.getElementById('picture').naturalWidth > 0"
            )
            drawn, shown = [
                await page.value(
                    f"Object.values(document.getElementById('{name}').getBoundingClientRect().toJSON()).slice(0, 4)"
                )
                for name in ("overlay", "picture")
            ]
            assert drawn == pytest.approx(shown, abs=1), "what is drawn lies on the picture"
            x, y, width, height = shown
            await page.click(x + width / 2, y + height / 2)
            await page.until("!!document.querySelector('#overlay .mask')")
            await page.press("Enter")
            await page.until("document.querySelectorAll('.tile.redraw').length == 1")
            await page.press("r")
            await page.until("document.querySelectorAll('.tile.reject').length == 2")
            await page.press("u")
            await page.until("document.querySelectorAll('.tile.reject').length == 1")
            await page.until("document.getElementById('count').textContent.startsWith('3 of 8')")
            await page.press("g")
            await page.until("document.querySelectorAll('.tile').length == 7")

    try:
        asyncio.run(sit_down())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert Store(sidecar, "ben").decided() == {order[0]: "reject", order[1]: "keep", order[2]: "redraw"}
    assert validate(sidecar) == []


def test_the_command_says_what_is_missing(sidecar: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["review", str(tmp_path / "empty")]) == 2
    assert "is no annotation sidecar" in capsys.readouterr().err
    assert main(["review", str(sidecar), "--segmenter", "grabcutt"]) == 2
    assert "scenes" in capsys.readouterr().err


def test_a_full_disk_keeps_the_order_of_decisions(store: Store, sidecar: Path, monkeypatch) -> None:
    """What could not be applied is applied before the next decision, not left out by it."""
    with monkeypatch.context() as patch:
        patch.setattr("pixelvla_core.annotations.edit.write_text", _full)
        with pytest.raises(UserError, match="No space left"):
            store.reject(1)
    assert all(problem.endswith("not in the manifest") for problem in validate(sidecar)), "at most a file too many"
    store.reject(2)
    assert statuses(sidecar, 1) == statuses(sidecar, 2) == {"review"}
    assert not store.notes[1].kept
    assert validate(sidecar) == []
    assert Store(sidecar, "ben").decided() == {1: "reject", 2: "reject"}


def test_a_line_that_does_not_fit_is_not_half_there(store: Store, sidecar: Path, monkeypatch) -> None:
    store.reject(0)
    before = (sidecar / LOG).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pixelvla_review.store.os.fsync", _full)
        with pytest.raises(UserError, match="No space left"):
            store.reject(1)
    assert (sidecar / LOG).read_bytes() == before
    assert store.decided() == {0: "reject"}


def _full(*args: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_discarded_episode_is_redrawn_through_all_its_frames(store: Store, sidecar: Path) -> None:
    async def talk(client: TestClient, ask: Ask) -> None:
        await ask("/api/decide", {"episode": DISCARDED, "what": "redraw", "points": [[0.5, 0.5, 1]]})

    serving(store, talk)
    assert [row.frame for row in store.rows(DISCARDED)] == list(range(annotating.LENGTH))
    assert validate(sidecar) == []


def test_a_mask_without_a_pixel_is_refused(store: Store, sidecar: Path) -> None:
    made = parts(EPISODES)
    made.segment = lambda image, prompts: np.zeros(image.shape[:2], bool)
    data = {"episode": 1, "what": "redraw", "points": [[0.5, 0.5, 1]]}
    with pytest.raises(UserError, match="finds nothing there"):
        Server(store, made)._decide(data)
    assert not (sidecar / LOG).exists()
