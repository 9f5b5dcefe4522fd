"""The annotation pipeline on drawn scenes with models that know the truth: it must lose nothing, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelvla_core import builtin
from pixelvla_core.annotate.batches import ahead, in_batches
from pixelvla_core.annotate.filters import change_reason, mask_reason
from pixelvla_core.annotate.pipeline import Local, Pipeline
from pixelvla_core.annotate.progress import duration
from pixelvla_core.annotate.regions import region_proposal, share_inside
from pixelvla_core.annotate.run import annotate
from pixelvla_core.annotate.work import Job
from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import Sidecar
from pixelvla_core.annotations.validate import validate
from pixelvla_core.errors import DataError, UserError
from pixelvla_core.files import sha256
from pixelvla_core.plugins import PluginManager, Registry
from pixelvla_core.prompts import Box
from pixelvla_core.recipe import Filters

STANDINS = Path(__file__).parent / "standins"
MODELS = ("gripper", "reasoner", "detector", "segmenter", "tracker")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("COLUMNS", "200")
    import annotating

    return PluginManager([builtin, annotating]).registry


def settings(episodes: int = 20, *more: str) -> list[str]:
    scenes = ["recording.name=scenes", f"recording.options.episodes={episodes}"]
    exact = [word for key in MODELS for word in (f"{key}.name=exact", f"{key}.options.episodes={episodes}")]
    return [*scenes, *exact, "episodes_per_shard=6", "video.chunk=8", "video.overlap=2", *more]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_with_exact_models_every_episode_is_kept_and_every_mask_is_exact(registry: Registry, tmp_path: Path) -> None:
    from annotating import LENGTH, Scenes

    out = annotate("scenes", tmp_path / "out", settings(), registry)
    assert validate(out) == []
    assert all(note.kept for note in read_episodes(out))
    sidecar, scenes = Sidecar(out, cache=tmp_path / "cache"), Scenes(20)
    for episode in range(20):
        for frame in range(LENGTH):
            (row,) = sidecar.find(episode, frame)
            assert row.mask is not None
            mask = row.mask.decode()
            assert (mask == scenes.square(episode, frame)).all()
            for point in row.points:
                assert mask[int(point.y * mask.shape[0]), int(point.x * mask.shape[1])]


def test_nothing_half_written_stays(registry: Registry, tmp_path: Path) -> None:
    leftovers = [
        tmp_path / "out" / name for name in (".a.1.partial", "steps/.b.png.2.partial", "steps/masks/.c.3.partial")
    ]
    for leftover in leftovers:
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.touch()
    (tmp_path / "out" / "recipe.yaml").touch()
    annotate("scenes", tmp_path / "out", settings(6), registry)
    assert not any(leftover.exists() for leftover in leftovers)


def test_every_discard_keeps_its_reason(registry: Registry, tmp_path: Path) -> None:
    more = ("recording.options.never=[3]", "recording.options.damaged=[5]", "filters.max_area=0.02")
    out = annotate("scenes", tmp_path / "out", settings(20, *more), registry)
    notes = {note.episode: note for note in read_episodes(out)}
    assert notes[3].reason == "no closing frame"
    assert notes[5].reason.startswith("corrupt: The images of episode 5")
    assert {note.reason for episode, note in notes.items() if episode not in (3, 5)} == {"huge"}
    assert not any(note.kept for note in notes.values())
    sidecar = Sidecar(out, cache=tmp_path / "cache")
    assert [row.status for row in sidecar.find(0, 0)] == ["review"]
    assert [row.status for row in sidecar.find(3, 0)] == ["failed"]
    assert validate(out) == []


class InterruptedRunError(Exception):
    pass


class Stops(Local):
    """A runner that breaks off after some tasks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def run(self, pipeline: Pipeline, step: str, keys: Sequence[int], done: object) -> None:
        for key in keys:
            if not self.left:
                raise InterruptedRunError
            self.left -= 1
            pipeline.do(step, key)


def break_off(out: Path, after: int, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotate until some tasks are done."""
    with monkeypatch.context() as patch:
        patch.setattr("pixelvla_core.annotate.run._runner", lambda *_: Stops(after))
        with pytest.raises(InterruptedRunError):
            annotate("scenes", out, settings(), registry)


@pytest.mark.parametrize("after", [0, 1, 4, 5, 7, 9, 10, 12, 14])
def test_an_interrupted_annotation_ends_with_the_same_bytes(
    after: int, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = annotate("scenes", tmp_path / "whole", settings(), registry)
    broken = tmp_path / "broken"
    break_off(broken, after, registry, monkeypatch)
    assert contents(annotate("scenes", broken, settings(), registry)) == contents(whole)


KILLED = """
import sys; sys.path.insert(0, sys.argv[1])
import annotating
from pathlib import Path
from pixelvla_core import builtin
from pixelvla_core.annotate.run import annotate
from pixelvla_core.plugins import PluginManager
print("ready", flush=True)
annotate("scenes", Path(sys.argv[2]), sys.argv[3:], PluginManager([builtin, annotating]).registry)
"""


@pytest.mark.slow
def test_kill_9_loses_nothing(registry: Registry, tmp_path: Path) -> None:
    arguments = settings(120)
    started = time.monotonic()
    whole = annotate("scenes", tmp_path / "whole", arguments, registry)
    took = time.monotonic() - started
    out = tmp_path / "killed"
    for share in (0.2, 0.5, 0.8):
        command = [sys.executable, "-c", KILLED, str(STANDINS), str(out), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(took * share)
            os.kill(process.pid, signal.SIGKILL)
    assert contents(annotate("scenes", out, arguments, registry)) == contents(whole)


def test_a_changed_recipe_repeats_what_it_changes_and_nothing_else(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    break_off(out, 14, registry, monkeypatch)
    before = contents(out)
    annotate("scenes", out, settings(20, "filters.min_score=0.3"), registry)
    after = contents(out)
    same = {name.split("/")[1] for name in before if name.startswith("steps/") and after[name] == before[name]}
    assert {"closing", "video", "grippers", "regions", "targets"} <= same
    assert "objects" not in same
    fresh = annotate("scenes", tmp_path / "fresh", settings(20, "filters.min_score=0.3"), registry)
    assert contents(fresh) == after


def test_a_finished_sidecar_is_left_alone(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = annotate("scenes", tmp_path / "out", settings(), registry)
    before = contents(out)
    annotate("scenes", out, settings(), registry)
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(DataError, match="made with other settings"):
        annotate("scenes", out, settings(20, "margin=0.5"), registry)
    assert contents(out) == before


def test_it_writes_into_no_folder_of_others(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    with pytest.raises(UserError, match="is not overwritten"):
        annotate("scenes", tmp_path, settings(), registry)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("segmenter=sam3", "no segmenter"),
        ("filters.min_scor=0.4", "min_score"),
        ("episodes=[0,99]", "lists 99"),
        ("video.overlap=8", "overlap is 8"),
        ("profile=fractl", "fractal"),
        ("recording.name=lerobt", "no recording"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(given: str, said: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        annotate("scenes", tmp_path / "out", settings(20, given), registry)
    assert not (tmp_path / "out" / "rows").exists()


def test_without_a_tracker_the_first_frames_are_annotated(registry: Registry, tmp_path: Path) -> None:
    out = annotate("scenes", tmp_path / "out", [*settings()[:-5], "tracker=null"], registry)
    assert len(Sidecar(out, cache=tmp_path / "cache").statuses()) == 20


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes = []

    def model(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise MemoryError
        return [2 * item for item in batch]

    assert list(in_batches(model, range(20), 8)) == [2 * item for item in range(20)]
    assert max(sizes) == 8
    with pytest.raises(UserError, match="does not fit into memory"):
        list(in_batches(lambda batch: (_ for _ in ()).throw(MemoryError), [1], 8))


@given(st.lists(st.integers(), max_size=20), st.integers(0, 20))
def test_what_is_prepared_ahead_comes_in_order_and_with_its_error(items: list[int], breaks: int) -> None:
    def source() -> Iterator[int]:
        for place, item in enumerate(items):
            if place == breaks:
                raise KeyError(item)
            yield item

    found = []
    try:
        for item in ahead(source()):
            found.append(item)
    except KeyError:
        assert breaks < len(items)
    assert found == items[:breaks]


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    mask = np.zeros((height, width), bool)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    mask[top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))] = True
    return mask


@given(masks(), st.floats(0, 3))
def test_a_region_holds_its_mask_and_grows_with_the_margin(mask: np.ndarray, margin: float) -> None:
    region, bare = region_proposal(mask, margin), region_proposal(mask, 0.0)
    assert share_inside(mask, region) == share_inside(mask, bare) == 1.0
    assert (region.x0, region.y0) <= (bare.x0, bare.y0)
    assert (region.x1, region.y1) >= (bare.x1, bare.y1)


def test_the_filters_tell_why() -> None:
    whole, mask = Box(0.0, 0.0, 1.0, 1.0), np.zeros((100, 100), bool)
    assert mask_reason(mask, 0.9, whole, Filters()) == "empty"
    mask[10:20, 10:20] = True
    assert mask_reason(mask, 0.9, whole, Filters()) == ""
    assert mask_reason(mask, 0.1, whole, Filters()) == "low score"
    assert mask_reason(mask, 0.9, whole, Filters(min_area=0.05)) == "tiny"
    assert mask_reason(mask, 0.9, Box(0.5, 0.5, 1.0, 1.0), Filters()) == "outside the region"
    mask[50:60, 50:60] = True
    assert mask_reason(mask, 0.9, whole, Filters()) == "fragmented"
    assert mask_reason(np.ones((9, 9), bool), 0.9, whole, Filters()) == "huge"
    assert change_reason([10, 12, 0, 11], Filters()) == ""
    assert change_reason([10, 12, 100], Filters()) == "changed too fast"


def test_what_it_says_where_there_is_no_terminal(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ("recording.options.never=[3]", "recording.options.damaged=[5]")
    annotate("scenes", tmp_path / "out", settings(20, *more), registry)
    said = capsys.readouterr().out
    counted = r"18 kept, 1 no closing frame, 1 corrupt\)"
    assert re.search(rf"Follow them through time: [\d.]+ s \([\d.]+ episodes/s, [\d,]+ frames/s, {counted}", said)
    assert re.search(r"Reason about instructions: .* instructions/s, 3 kept\)", said)
    assert re.search(r"18 +90.0% +kept", said)
    assert "for 20 episodes and 216 annotated frames" in said
    assert "pixelvla review" in said


def test_options_follow_a_parts_name_in_the_same_command(registry: Registry, tmp_path: Path) -> None:
    short = [each.replace(".name=", "=") for each in settings(20)]
    out = annotate("scenes", tmp_path / "out", short, registry)
    assert all(note.kept for note in read_episodes(out))


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.21, "3.2 s"), (59.4, "59 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")]
)
def test_durations_are_read_at_a_glance(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_job_travels_as_plain_data(registry: Registry, tmp_path: Path) -> None:
    import pickle

    from pixelvla_core.recipe import compose

    recipe = compose(["annotate/default"], [f"annotate.{each}" for each in settings()], registry=registry, parts=())
    assert recipe.annotate is not None
    job = Job(recipe.annotate, "scenes", tmp_path)
    assert pickle.loads(pickle.dumps(job)) == job
