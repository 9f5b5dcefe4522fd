"""The report, from results that are made up but pass through the real files."""

from __future__ import annotations

import html.parser
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pixelvla_demo import charts, tables
from pixelvla_demo.methods import methods_of
from pixelvla_demo.plan import Size, plan
from pixelvla_demo.report import render, write
from pixelvla_demo.sources import Model, Row, read_metrics, rows
from pixelvla_demo.strips import draw, tinted

from pixelvla_core.api import Box, Point, UserError
from pixelvla_core.evaluate.films import Film
from pixelvla_core.evaluate.records import Job, Record
from pixelvla_core.evaluate.results import Results, save

WORLD = {"env": {"name": "somewhere"}, "success": "after the last step"}
SPLITS = ("visual_matching", "variants")


def film(root: Path, name: str, prompts) -> str:
    """A film of three frames, kept as an evaluation keeps it."""
    reel = Film(root, name)
    mask = np.zeros((32, 32), bool)
    mask[8:20, 10:22] = True
    for level in (60, 120, 180):
        reel.keep(np.full((32, 32, 3), level, np.uint8), mask if prompts else None, prompts)
    return reel.save()


def results(rate: float, prompts=("none",), episodes: int = 50, seed: int = 0, **facts) -> Results:
    """Episodes of two tasks in two splits that succeed at a rate."""
    rng = np.random.default_rng(seed)
    records = []
    for prompt in prompts:
        for split in SPLITS:
            for task in ("pick", "open <drawer>"):
                for episode in range(episodes):
                    job = Job(task=task, split=split, prompt=prompt, episode=episode, seed=episode)
                    extra = {**facts, **({"axis": ("camera", "lighting")[episode % 2]} if split == "variants" else {})}
                    success = bool(rng.random() < rate)
                    overlap = None if prompt == "none" else 0.9
                    records.append(Record(job=job, success=success, steps=20, iou=overlap, facts=extra))
    method = {"checkpoint": "0123456789abcdef", "segmenter": "oracle", "tracker": {"name": "hold"}, "execute": 4}
    sessions = [{"seconds": 12.0, "episodes": len(records)}]
    return Results(world=WORLD, method=method, records=tuple(records), notes={"sessions": sessions})


def lay_out(out: Path) -> list[SimpleNamespace]:
    """Two evaluated runs on disk: a base, and a model with training log, prompts and films."""
    save(results(0.2), out / "base" / "eval" / "results.json")
    found = results(0.9, ("none", "point"), seed=1)
    folder = out / "pixel" / "eval"
    first = next(i for i, record in enumerate(found.records) if record.job.prompt == "point")
    kept = film(folder, "films/one", (Point(0.4, 0.4), Box(0.3, 0.2, 0.7, 0.7)))
    records = list(found.records)
    records[first] = Record(job=records[first].job, success=True, film=kept, instruction="pick <it> & go", iou=0.9)
    save(Results(world=WORLD, method=found.method, records=tuple(records), notes=found.notes), folder / "results.json")
    log = [{"step": i, "stage": "cat", "stage_step": i, "loss": math.exp(-i / 50)} for i in range(1, 100)]
    (out / "pixel" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"step": 100, "lo')
    titles = {"base": "Base & co", "pixel": "PixelVLA"}
    return [SimpleNamespace(name=name, title=title, base="openvla") for name, title in titles.items()]


class Checker(html.parser.HTMLParser):
    """Collects what a browser would fetch, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.fetched += [attributes[name] for name in ("src", "href") if attributes.get(name)]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_file_that_fetches_nothing(tmp_path):
    path = write(tmp_path, lay_out(tmp_path), {"pixelvla eval base --name 'a<b'": 12.5, "pixelvla train": 200}, 150.0)
    text = path.read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.fetched) == 1
    assert checker.fetched[0].startswith("data:image/png;base64,")
    assert "url(" not in text
    assert "@import" not in text
    for part in ("Base &amp; co", "pick &lt;it&gt; &amp; go", "open &lt;drawer&gt;", "a&lt;b", "0123456789abcdef"):
        assert part in text
    for heading in ("Success by split", "Difference to", "Episodes", "Success by task", "axis", "Learning", "repeat"):
        assert heading in text
    assert "PixelVLA (text + point)" in text or "PixelVLA (text only)" in text
    assert "3.3\u00a0min" in text


def test_missing_or_incomparable_results_are_refused(tmp_path):
    methods = lay_out(tmp_path)
    path = tmp_path / "pixel" / "eval" / "results.json"
    path.write_text(path.read_text().replace('"somewhere"', '"elsewhere"'))
    with pytest.raises(UserError, match="different protocols"):
        write(tmp_path, methods, {}, 0.0)
    path.unlink()
    with pytest.raises(UserError, match="holds no results"):
        write(tmp_path, methods, {}, 0.0)
    assert not (tmp_path / "report.html").exists()


def model(title: str, found: Results, base: str = "") -> Model:
    return Model(title, found, Path(), base=base)


def test_best_is_bold_only_if_it_beats_every_other_model():
    weak, strong = model("weak", results(0.2)), model("strong", results(0.9, seed=1))
    near = model("near", results(0.9, seed=2))
    best = tables.best_row(rows([weak, strong]), SPLITS[0])
    assert best is not None
    assert best.model is strong
    assert tables.best_row(rows([weak, strong, near]), SPLITS[0]) is None
    assert tables.best_row(rows([strong]), SPLITS[0]) is None
    two_prompts = model("two", results(0.9, ("none", "box"), seed=3))
    assert tables.best_row(rows([weak, two_prompts]), SPLITS[0]).model is two_prompts


def test_models_of_different_bases_are_not_compared():
    first = [model("A", results(0.6), "a"), model("PixelA", results(0.9, seed=1), "a")]
    second = [model("B", results(0.1, seed=2), "b"), model("PixelB", results(0.5, seed=3), "b")]
    everything = rows([*first, *second])
    assert [row.model.title for row in tables.best_rows(everything, SPLITS[0])] == ["PixelA", "PixelB"]
    text = render([*first, *second], {})
    assert "PixelB (text only), succeeds in" in text
    for base, other in (("A", "B"), ("B", "A")):
        table = text.split(f"<h2>Difference to {base}</h2>")[1].split("</table>")[0]
        assert f"Pixel{base}" in table
        assert f"Pixel{other}" not in table


def test_rows_of_few_episodes_are_marked_and_never_best(tmp_path):
    weak, few = model("weak", results(0.2)), model("few", results(1.0, episodes=20, seed=1))
    assert tables.best_row(rows([weak, few]), SPLITS[0]) is None
    strong = model("strong", results(0.9, seed=2))
    assert tables.best_row(rows([weak, few, strong]), SPLITS[0]).model is strong
    table = tables.success_table(rows([weak, few]), SPLITS, "split")
    assert table.count("n=40&nbsp;†") == 2
    assert table.count("†") == 2
    assert tables.comparison_table(rows([weak, few]), rows([weak])[0], SPLITS).count("40 pairs&nbsp;†") == 2
    page = render([weak, few], {})
    assert "Only 40 episodes: nothing is claimed." in page
    assert "†: fewer than 100 episodes" in page
    assert "nothing is claimed" not in render([weak, few, strong], {}).split("</ul>")[0]
    assert "†" not in render([weak, strong], {})


def test_the_demonstration_plays_the_overlay_baseline_less_often():
    size = Size(demonstrations=8, episodes=100, overlay_episodes=40, workers=2, seed=0)
    found = {}
    for step in (step for phase in plan(Path("out"), size) for step in phase.steps):
        if step.command[0] == "eval":
            split, episodes = step.command[3], step.command[step.command.index("--episodes") + 1]
            found[step.command[1], split] = int(episodes)
    for method in methods_of(["openvla"]):
        quarter, half = (25, 50) if method.name != "overlay" else (10, 20)
        assert found[f"out/{method.name}", "visual_matching"] == quarter
        assert found[f"out/{method.name}", "unseen_objects"] == half


def test_cells_say_rate_interval_and_number():
    row = Row(model("m", results(1.0, episodes=5)), "none")
    cell = tables.cell_html(row.cells("split")[(SPLITS[0],)])
    assert "100.0\u00a0%" in cell
    assert "[72.2, 100.0] n=10" in cell
    assert "–" in tables.cell_html(None)


def test_training_logs_bear_repeats_and_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 2, "loss": 9.0}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"epoch": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3')
    assert [entry["loss"] for entry in read_metrics(path)] == [2.0, 1.0]
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_curves_leave_out_what_is_not_a_number():
    drawn = charts.curves("Loss", [("a", [(1, 1.0), (2, math.nan), (3, 0.5)]), ("b", [])], "step")
    assert drawn.count("<path") == 2
    assert "nan" not in drawn
    assert charts.curves("Loss", [("a", [])], "step") == ""
    assert charts.curves("Loss", [("a", [(1, 2.0)])], "step").startswith("<svg")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 1500), (0.37, 0.42), (-3, 7e6)])
def test_ticks_are_few_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)


def test_masks_and_prompts_are_seen():
    image = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    picture = tinted(image, mask)
    assert picture.getpixel((10, 10)) == (255, 0, 200)
    assert picture.getpixel((15, 15)) != (100, 100, 100)
    assert picture.getpixel((30, 30)) == (100, 100, 100)
    draw(
        picture, [{"kind": "point", "x": 0.8, "y": 0.8, "positive": True}, {"kind": "box", "box": [0.2, 0.2, 0.6, 0.6]}]
    )
    assert picture.getpixel((32, 32)) == (255, 255, 255)
    draw(picture, [{"kind": "line", "vertices": [[0.1, 0.9], [0.5, 0.9]]}, {"kind": "mask", "box": [0, 0, 1, 1]}])
    assert picture.getpixel((10, 36)) == (255, 255, 255)
