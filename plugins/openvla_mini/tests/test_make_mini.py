"""The chain that makes openvla-mini, whole and tiny, and what it says of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
TINY = {"EPISODES": "4", "SCENES": "9", "WARM_STEPS": "2", "GROUND_STEPS": "3"}  # 9 scenes: one picture is held out
STAGES = " ".join(
    f"stages.{stage}.{key}={value}"
    for stage, steps in (("act", 4), ("pretrain", 5))
    for key, value in (("steps", steps), ("warmup_steps", 0), ("batch_size", 2), ("save_every", 5))
)
COMMIT = re.compile("([0-9a-f]{40}(-dirty)?)?")  # empty outside a clone
STEPS = ["data", "pictures.npz", "start", "warm", "ground", "run_openvla"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("mini")
    work, out = folder / "work", folder / "weights"
    env = {**os.environ, **TINY, "TRAIN": STAGES, "PIXELVLA_CACHE": str(folder / "cache")}
    done = subprocess.run([ROOT / "scripts" / "make_mini.sh", work, out], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work, out


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.timeout(120)
def test_the_chain_makes_weights_that_act(made):
    from pixelvla_openvla import OpenVLA

    model = OpenVLA.from_pretrained(made[1], dtype="float32")
    actions = model.predict_action(**model.inputs([np.zeros((112, 112, 3), np.uint8)], ["pick up the red cube"]))
    assert actions.shape == (1, 7)
    assert np.isfinite(actions).all()


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.timeout(120)
def test_the_provenance_tells_what_was_run(made):
    work, out = made
    text = (out / "provenance.json").read_text(encoding="utf-8")
    provenance = json.loads(text)
    assert str(work) not in text
    assert COMMIT.fullmatch(provenance["commit"])
    assert provenance["started_from"]
    assert {name: stage["steps"] for name, stage in provenance["stages"].items()} == {"act": 4, "pretrain": 5}
    assert {stage["seed"] for stage in provenance["stages"].values()} == {0}
    before = {step["made"]: step for step in provenance["steps_before"]}
    assert set(before) == {"first", "second", *STEPS}
    assert [step["made"] for step in provenance["steps_before"]][2:] == STEPS
    ground = before["ground"]["command"]
    assert ground[1:] == ["scripts/mini/ground.py", "warm", "pictures.npz", "part", "--steps", "3", "--seed", "0"]
    assert before["first"]["command"][:6] == ["pixelvla", "record", "first", "--episodes", "4", "--seed"]
    for step in before.values():
        assert COMMIT.fullmatch(step["commit"])
        assert step["versions"] == provenance["versions"]
        assert len(step["sha256"]) == 64


def note(work: Path, name: str, made: Path, *command: str) -> None:
    script = ROOT / "scripts" / "mini" / "note.py"
    subprocess.run([sys.executable, script, work, name, made, *command], check=True)


def test_a_note_has_the_command_its_commit_and_what_it_made(tmp_path: Path):
    part = tmp_path / "part"
    (part / "inner").mkdir(parents=True)
    (part / "inner" / "file").write_text("made")
    note(tmp_path, "thing", part, "/some/bin/python", "make.py", f"{tmp_path}/part", "--seed", "0")
    note(tmp_path, "again", part, "make")
    (part / "inner" / "file").write_text("changed")
    note(tmp_path, "other", part, "make")
    thing, again, other = (json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines())
    assert thing["command"] == ["python", "make.py", "part", "--seed", "0"]
    assert thing["sha256"] == again["sha256"] != other["sha256"]
    assert COMMIT.fullmatch(thing["commit"])
