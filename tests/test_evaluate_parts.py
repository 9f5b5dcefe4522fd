"""An evaluation needs the parts that it uses, says at once which is missing, and needs no other."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import train_toy

from pixelvla_core.component import Component
from pixelvla_core.errors import UserError
from pixelvla_core.evaluate.plan import prepare
from pixelvla_core.evaluate.run import evaluate
from pixelvla_core.evaluate.trackers import Hold
from pixelvla_core.plugins import Entry, Registry
from pixelvla_core.recipe import compose
from pixelvla_core.train.run import train

HOLD = {"target": "pixelvla_core.evaluate.trackers:Hold", "config": "pixelvla_core.evaluate.config:HoldConfig"}
WORLD = {"target": "reaching:Suite", "config": "reaching:ReachingConfig"}
PARTS = {"environment": WORLD, "segmenter": HOLD, "tracker": HOLD}
OVERRIDES = ("evaluate.env=gone", "evaluate.segmenter=gone", "evaluate.tracker=gone", "evaluate.episodes=1")


def registry(without: str = "") -> Registry:
    """The toy's parts, and the three that an evaluation uses; one kind may be left out."""
    found = [
        Entry(kind=kind, component=Component(name="gone", **targets), distribution="pixelvla-gone", version="1")
        for kind, targets in PARTS.items()
    ]
    return Registry([entry for entry in (*train_toy.registry(), *found) if entry.kind != without])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose recipe names an environment, a segmenter and a tracker of a plugin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "standins"))
        out = tmp_path_factory.mktemp("parts") / "run"
        recipe = compose([str(train_toy.FOLDER / "native.yaml")], OVERRIDES, dirs=[], registry=registry())
        train(recipe, out, False, registry())
    return out


@pytest.fixture(autouse=True)
def _reaching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "standins"))


@pytest.mark.parametrize("kind", [*PARTS, "backbone", "action_head"])
def test_a_part_that_is_not_installed_is_named_before_a_process_starts(kind: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no {kind.replace('_', ' ')} .*Install the distribution that offers it"):
        evaluate(run, out=tmp_path / "out", registry=registry(without=kind), quiet=True)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "out").exists()


def test_the_data_that_a_model_was_trained_on_are_not_needed(run: Path, tmp_path: Path) -> None:
    plan = prepare(run, tmp_path / "out", "toy", registry(without="dataset"), {})
    assert {job.task for job in plan.jobs} == {"walk", "stroll"}
    assert plan.method["tracker"]["distribution"] == "pixelvla-gone"
    assert plan.setup.modules.count("pixelvla_core.evaluate.trackers") == 2


@pytest.mark.parametrize("kind", ["segmenter", "tracker"])
def test_the_weights_of_a_part_are_looked_for_first_and_noted(kind, run, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Hold, "identity", lambda part: {"sha256": "12ab"}, raising=False)
        method = prepare(run, tmp_path / "out", "toy", registry(), {}).method
        assert method[kind]["weights"] == {"sha256": "12ab"}
        patch.setattr(Hold, "identity", _missing)
        with pytest.raises(UserError, match="hf download"):
            prepare(run, tmp_path / "out", "toy", registry(), {})
    assert "weights" not in prepare(run, tmp_path / "out", "toy", registry(), {}).method[kind]


def _missing(part: Hold) -> None:
    raise UserError("The weights are not here. Get them with `hf download`.")
