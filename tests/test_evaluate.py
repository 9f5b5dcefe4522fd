"""Closed-loop evaluation in a tiny world, with real worker processes."""

from __future__ import annotations

import functools
import json
import multiprocessing
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixelvla_core.component import Component
from pixelvla_core.contract import ActionContract, Gripper, Rotation, Statistics
from pixelvla_core.errors import ContractError, UserError
from pixelvla_core.evaluate import pool, user
from pixelvla_core.evaluate.config import HoldConfig, Running
from pixelvla_core.evaluate.episode import Rollout
from pixelvla_core.evaluate.fit import check_fit
from pixelvla_core.evaluate.plan import Plan, _settings, check_device, jobs
from pixelvla_core.evaluate.records import Job, Journal, Record
from pixelvla_core.evaluate.results import Results, load, merge, paired, save
from pixelvla_core.evaluate.run import measure
from pixelvla_core.evaluate.table import table
from pixelvla_core.evaluate.trackers import Hold
from pixelvla_core.evaluate.workers import Setup
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.recipe import Evaluate, Part

HOLD = Component(
    name="hold", target="pixelvla_core.evaluate.trackers:Hold", config="pixelvla_core.evaluate.config:HoldConfig"
)


@pytest.fixture
def reaching(monkeypatch):
    """The stand-in world; spawned workers inherit the import path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "standins"))
    import reaching

    return reaching


def make_plan(
    reaching, out, *, policy=None, episodes=3, prompts=("none", "point"), films=0, workers=1, tasks=(), **config
):
    suite = Component(name="reaching", target="reaching:Suite", config="reaching:ReachingConfig")
    options = reaching.ReachingConfig(**config)
    settings = Evaluate(env=Part("reaching"), tasks=list(tasks), episodes=episodes, prompts=list(prompts))
    return Plan(
        setup=Setup(
            policy=functools.partial(reaching.load_seeker, **(policy or {})),
            environment=(suite, options),
            segmenter=None,
            tracker=(HOLD, HoldConfig()),
            out=out,
            slots=3,
            films=films,
        ),
        jobs=jobs(settings, reaching.Suite(options)),
        workers=workers,
        world={"env": {"name": "reaching"}},
        method={"segmenter": "oracle"},
        notes={"name": "seeker"},
    )


def outcomes(results: Results) -> list[dict]:
    """Everything of the records but how long they took."""
    return [{**record.to_json(), "seconds": None} for record in results.records]


def test_every_episode_runs_once_with_its_seed_and_files_say_how(reaching, tmp_path):
    results = measure(make_plan(reaching, tmp_path, films=1), quiet=True)
    assert len(results.records) == 2 * 2 * 3 * 2
    assert len({record.job.key for record in results.records}) == len(results.records)
    assert all(record.success and record.grasped and 0 < record.steps <= 20 for record in results.records)
    assert {r.job.seed for r in results.records} == {0, 1, 2}
    assert all(record.iou == (None if record.job.prompt == "none" else 1.0) for record in results.records)
    assert load(tmp_path / "results.json") == results
    plain = json.loads((tmp_path / "results.json").read_text())
    assert {cell["n"] for cell in plain["cells"]} == {3}
    assert plain["sessions"][0]["episodes"] == 24
    film = next(record for record in results.records if record.film and record.prompts)
    assert {path.name for path in (tmp_path / film.film).iterdir()} == {"images.png", "masks.png", "prompts.json"}
    assert sum(bool(record.film) for record in results.records) == 8


def test_outcomes_do_not_depend_on_workers_and_slots(reaching, tmp_path):
    first = measure(make_plan(reaching, tmp_path / "a", workers=1), quiet=True)
    plan = make_plan(reaching, tmp_path / "b", workers=2)
    second = measure(replace(plan, setup=replace(plan.setup, slots=1)), quiet=True)
    assert outcomes(first) == outcomes(second)


def test_a_stopped_evaluation_repeats_nothing(reaching, tmp_path):
    whole = measure(make_plan(reaching, tmp_path), quiet=True)
    lines = (tmp_path / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "episodes.jsonl").write_bytes(b"".join(lines[:10]) + lines[10][:25])  # killed while writing line 11
    again = measure(make_plan(reaching, tmp_path), quiet=True)
    assert outcomes(again) == outcomes(whole)
    assert again.notes["sessions"][-1]["episodes"] == 14
    assert (tmp_path / "episodes.jsonl").read_bytes().splitlines(keepends=True)[:10] == lines[:10]


def test_ctrl_c_ends_the_workers_and_keeps_what_is_finished(reaching, tmp_path, monkeypatch):
    append, plan = Journal.append, make_plan(reaching, tmp_path)

    def interrupted(self, record):
        append(self, record)
        if len(self.read()) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(plan, quiet=True)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(Journal, "append", append)
    results = measure(plan, quiet=True)
    assert results.notes["sessions"][-1]["episodes"] == len(plan.jobs) - 5
    assert all(record.success for record in results.records)


def test_more_episodes_are_added_to_what_is_there(reaching, tmp_path):
    measure(make_plan(reaching, tmp_path, episodes=1), quiet=True)
    results = measure(make_plan(reaching, tmp_path, episodes=2, prompts=["none", "point", "box"]), quiet=True)
    assert Counter(record.job.prompt for record in results.records) == {"none": 8, "point": 8, "box": 8}
    assert [session["episodes"] for session in results.notes["sessions"]] == [8, 16]


@pytest.mark.parametrize("content", ["{}", '{"format": 0}', '{"format": 1, "wor'])
def test_results_that_cannot_be_read_are_kept_beside_and_cost_no_episode(reaching, tmp_path, content):
    measure(make_plan(reaching, tmp_path, episodes=1, tasks=["walk"]), quiet=True)
    (tmp_path / "results.json").write_text(content)
    with pytest.warns(UserWarning, match=r"kept as results\.json\..*unreadable; the episodes are in the journal"):
        results = measure(make_plan(reaching, tmp_path, episodes=2, tasks=["walk"]), quiet=True)
    assert [session["episodes"] for session in results.notes["sessions"]] == [4]
    assert load(tmp_path / "results.json") == results
    assert len(results.records) == 8
    assert [path.read_text() for path in tmp_path.glob("*.unreadable")] == [content]


def test_another_protocol_in_the_same_folder_is_refused(reaching, tmp_path):
    plan = make_plan(reaching, tmp_path, episodes=1)
    measure(plan, quiet=True)
    with pytest.raises(UserError, match=r"segmenter: 'oracle' and 'grabcut'.*Give another --out"):
        measure(replace(plan, method={"segmenter": "grabcut"}), quiet=True)


def test_an_evaluation_that_failed_before_its_first_episode_is_not_in_the_way(reaching, tmp_path):
    plan = make_plan(reaching, tmp_path, episodes=1)
    (tmp_path / "protocol.json").write_text(json.dumps({"world": plan.world, "method": {"segmenter": "grabcut"}}))
    assert measure(plan, quiet=True).records
    assert json.loads((tmp_path / "protocol.json").read_text())["method"] == {"segmenter": "oracle"}


@pytest.mark.parametrize("content", ["{", "[]", '{"world": {}}'])
def test_a_damaged_protocol_is_one_paragraph(content, reaching, tmp_path):
    plan = make_plan(reaching, tmp_path, episodes=1)
    (tmp_path / "protocol.json").write_text(content)
    with pytest.raises(UserError, match="does not say how the episodes beside it were run"):
        measure(plan, quiet=True)
    assert (tmp_path / "protocol.json").read_text() == content


def test_an_episode_that_raises_is_tried_twice_and_recorded(reaching, tmp_path):
    results = measure(make_plan(reaching, tmp_path, raises=(1,), prompts=["none"]), quiet=True)
    failed = [record for record in results.records if record.failure_reason]
    assert {record.job.seed for record in failed} == {1}
    assert len(failed) == 4
    assert all("RuntimeError: the square ran away" in record.failure_reason for record in failed)
    assert sum(record.success for record in results.records) == 8
    assert table(results).caption.startswith("4 episodes could not be run")


def test_a_dead_worker_is_replaced_and_harms_no_other_episode(reaching, tmp_path):
    plan = make_plan(reaching, tmp_path, dies=(2,), prompts=["none"], tasks=["walk"], workers=1)
    plan = replace(plan, jobs=plan.jobs[:4])
    results = measure(plan, quiet=True)
    failed = [record for record in results.records if record.failure_reason]
    assert [record.job.seed for record in failed] == [2]
    assert "exit code 3" in failed[0].failure_reason
    assert sum(record.success for record in results.records) == 3


def test_an_episode_whose_worker_died_once_succeeds_on_its_second_try(reaching, tmp_path):
    mark = str(tmp_path / "died")
    plan = make_plan(reaching, tmp_path / "out", dies=(0,), once=mark, prompts=["none"], tasks=["walk"], workers=1)
    plan = replace(plan, jobs=plan.jobs[:2])
    assert all(record.success for record in measure(plan, quiet=True).records)
    assert Path(f"{mark}-0").exists()


def hanging_plan(reaching, out, **config):
    plan = make_plan(reaching, out, prompts=["none"], tasks=["walk"], workers=1, **config)
    return replace(plan, jobs=plan.jobs[:3], setup=replace(plan.setup, step_timeout=4.0))


def test_a_hanging_worker_is_killed_and_harms_no_other_episode(reaching, tmp_path):
    results = measure(hanging_plan(reaching, tmp_path, hangs=(1,)), quiet=True)
    assert [record.job.seed for record in results.records if not record.success] == [1]
    reason = next(record.failure_reason for record in results.records if record.failure_reason)
    assert "no sign of life for 4 s (evaluate.step_timeout)" in reason
    assert multiprocessing.active_children() == []


def test_an_episode_that_hung_once_succeeds_on_its_second_try(reaching, tmp_path):
    mark = str(tmp_path / "hung")
    plan = hanging_plan(reaching, tmp_path / "out", hangs=(0,), once=mark)
    assert all(record.success for record in measure(plan, quiet=True).records)
    assert Path(f"{mark}-0").exists()


def test_an_evaluation_that_is_stopped_leaves_no_hanging_worker(reaching, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.5)
    plan = hanging_plan(reaching, tmp_path, hangs=(1,))
    with closing(pool.Pool(plan.setup, plan.jobs, 1).run()) as records:
        assert next(records).success
        time.sleep(1)  # until the other one hangs, and ignores SIGTERM
    assert multiprocessing.active_children() == []


def test_a_policy_that_never_works_stops_the_evaluation(reaching, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "GIVE_UP", 2)
    plan = make_plan(reaching, tmp_path, policy={"breaks": True}, workers=1)
    with pytest.raises(UserError, match=r"2 attempts.*shapes do not fit"):
        measure(plan, quiet=True)


def test_the_policy_looks_once_per_chunk_and_nothing_else_is_rendered(reaching):
    env = reaching.Reaching("walk", "near", reaching.ReachingConfig())
    rollout = Rollout(
        job=Job(task="walk", split="near", prompt="box", episode=0, seed=5),
        env=env,
        camera="front",
        segmenter=None,
        tracker=Hold(),
    )
    policy = reaching.Seeker()
    while not rollout.done:
        sample = rollout.look()
        assert sample.masks["front"].shape == (1, reaching.SIZE, reaching.SIZE)
        assert isinstance(sample.prompts["front"][0], Box)
        rollout.act(policy.act([sample])[0])
    record = rollout.record()
    assert record.success
    assert record.looks == env.rendered == -(-record.steps // 4)


def test_a_prompt_helps_a_policy_that_is_blind_without_one(reaching, tmp_path):
    results = measure(make_plan(reaching, tmp_path, policy={"blind": True}), quiet=True)
    rates = {key[0]: cell.success.value for key, cell in results.cells("prompt").items()}
    assert rates["point"] == 1.0 > rates["none"]
    found = paired(results, results, ("point", "none"))
    assert (found.pairs, found.first) == (12, 1.0)
    assert found.p_value < 0.05
    assert set(results.cells("prompt", "axis")) == {(p, a) for p in ("none", "point") for a in ("axis0", "axis1")}


def record_of(seed: int, prompt: str = "none", **outcome) -> Record:
    return Record(job=Job(task="walk", split="near", prompt=prompt, episode=seed, seed=seed), **outcome)


def test_merging_refuses_mixed_protocols_and_double_counting():
    first = Results(world={"env": "a"}, method={"execute": 8}, records=(record_of(0), record_of(1)))
    second = replace(first, records=(record_of(2),))
    assert [record.job.seed for record in merge([first, second]).records] == [0, 1, 2]
    with pytest.raises(UserError, match="walk/near/none/1 is in two"):
        merge([first, replace(second, records=(record_of(1),))])
    with pytest.raises(UserError, match=r"\(method\).*execute: 8 and 4"):
        merge([first, replace(second, method={"execute": 4})])
    with pytest.raises(UserError, match=r"\(world\).*env: 'a' and 'b'"):
        paired(first, replace(second, world={"env": "b"}), ("none", "none"))


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(UserError, match="holds no results"):
        load(path)
    save(Results(world={}, method={}, records=(record_of(0, success=True),)), path)
    assert load(path).records[0].success
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="has format 9"):
        load(path)
    journal = Journal(tmp_path / "episodes.jsonl")
    journal.append(record_of(0))
    with journal.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="Line 2 of"):
        journal.read()


def test_the_user_marks_the_same_place_for_every_model_and_another_for_every_prompt():
    mask = np.zeros((40, 60), bool)
    mask[10:22, 30:50] = True
    job = Job(task="pick", split="near", prompt="point+box", episode=1, seed=11)
    first, second = (user.give(job.prompt, mask, user.generator(job)) for _ in range(2))
    assert first == second
    assert [type(prompt) for prompt in first] == [Point, Box]
    assert first[1] == Box(30 / 60, 10 / 40, 50 / 60, 22 / 40)
    other = replace(job, prompt="point")
    assert user.give("point", mask, user.generator(other))[0] != first[0]
    assert user.give("none", mask, user.generator(job)) == ()
    assert user.give("box", np.zeros((4, 4), bool), user.generator(job)) == ()
    given = user.give("mask", mask, user.generator(job))
    assert user.mask_given(given) is mask
    assert user.mask_given(first) is None
    assert json.dumps([user.to_plain(prompt) for prompt in (*first, *given, Line(((0.1, 0.2), (0.3, 0.4))))])


def test_prompts_follow_the_tracked_mask_and_stay_in_the_image():
    first, now = np.zeros((2, 20, 20), bool)
    first[5:9, 5:9], now[5:9, 15:19] = True, True
    prompts = (Point(0.35, 0.35), Line(((0.3, 0.3), (0.4, 0.4))), Box(0.25, 0.25, 0.45, 0.45), Mask(first))
    point, line, box, mask = user.follow(prompts, first, now)
    assert (point.x, point.y) == pytest.approx((0.85, 0.35))
    assert line.vertices[0] == pytest.approx((0.8, 0.3))
    assert (box.x0, box.x1) == pytest.approx((0.75, 0.95))
    assert (mask.array == now).all()
    assert user.follow(prompts, first, first) is prompts
    now[:] = False
    now[0, 0] = True
    point, _, box, _ = user.follow((Point(0.01, 0.01), prompts[1], prompts[2], prompts[3]), first, now)
    assert 0 <= point.x <= 1
    assert box.x1 - box.x0 == pytest.approx(0.2)


def test_options_override_the_recipe_and_unknown_ones_are_named():
    base = Evaluate(env=Part("a"), segmenter=Part("grabcut"), episodes=7)
    settings, running = _settings(base, {"episodes": None, "env": "b", "segmenter": "oracle", "slots": 2})
    assert (settings.episodes, settings.env, settings.segmenter, running) == (7, Part("b"), None, Running(slots=2))
    with pytest.raises(UserError, match=r"no option 'episode'\. Did you mean 'episodes'"):
        _settings(base, {"episode": 3})
    with pytest.raises(UserError, match="prompts is 'dot'"):
        _settings(base, {"prompts": ["dot"]})
    with pytest.raises(UserError, match=r"Did you mean 'point'\?$"):
        _settings(base, {"prompts": ["pont"]})


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match=f"--device is '{name}'.*This machine has"):
        check_device(name)
    check_device("cpu")


def contract(**facts):
    values = {name: (0.0,) * 7 for name in ("q01", "mean")} | {name: (1.0,) * 7 for name in ("q99", "std")}
    statistics = Statistics(min=(0.0,) * 7, max=(1.0,) * 7, **values)
    gripper = Gripper(index=6, open=1.0, closed=0.0)
    given = {"fps": 5.0, "camera": "front", "gripper": gripper, **facts}
    return ActionContract(names=tuple("abcdefg"), statistics=statistics, mask=(True,) * 7, **given)


WORLD = {
    "names": tuple("abcdefg"),
    "fps": 5,
    "orientation": "upright",
    "gripper_open": 1.0,
    "gripper_closed": 0.0,
    "rotation": "euler_xyz_delta",
    "camera": "front",
    "frame": "base",
    "low": (-1.0,) * 7,  # what a world says beyond the contract is not compared
}
EULER = Rotation(kind="euler_xyz", start=3)


def test_a_world_that_means_the_same_or_says_nothing_fits(recwarn):
    for facts in (WORLD, {}, {**WORLD, "camera": None}, {"rotation": "euler_xyz_delta"}):
        check_fit(contract(rotation=EULER), facts)
    check_fit(contract(rotation=None, gripper=None), {"rotation": "none"})
    assert not recwarn.list


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ({"fps": 10.0}, {}, "fps: 10.0 in the checkpoint, 5 in the environment"),
        ({}, {"gripper_open": -1.0}, "gripper_open: 1.0 in the checkpoint, -1.0"),
        ({}, {"gripper_delta": True}, "gripper_delta: False in the checkpoint, True"),
        ({"gripper": Gripper(index=6, open=1.0, closed=0.0, delta=True)}, {}, "gripper_delta: True in the checkpoint"),
        ({"gripper": None}, {}, "gripper_open: 'none' in the checkpoint, 1.0"),
        ({}, {"names": tuple("abcdef")}, "names: .*'g'. in the checkpoint"),
        ({}, {"names": tuple("bacdefg")}, "names: .'a', 'b'.* in the checkpoint, .'b', 'a'"),
        (
            {"rotation": Rotation(kind="axis_angle", start=3)},
            {},
            "rotation: 'axis_angle_delta' in .* 'euler_xyz_delta'",
        ),
        ({"rotation": replace(EULER, delta=False)}, {}, "rotation: 'euler_xyz' in the checkpoint"),
        ({"rotation": None}, {}, "rotation: 'none' in the checkpoint"),
        ({"camera": "wrist"}, {}, "camera: 'wrist' in the checkpoint, 'front'"),
        ({"frame": "tool"}, {}, "frame: 'tool' in the checkpoint, 'base'"),
        ({"unknown": ["names"]}, {"names": tuple("abcdef")}, "dimensions: 7 in the checkpoint, 6"),
    ],
)
def test_a_world_whose_actions_mean_something_else_is_refused(mine, theirs, words):
    with pytest.raises(ContractError, match=words):
        check_fit(contract(**{"rotation": EULER, **mine}), {**WORLD, **theirs})


def test_a_checkpoint_without_a_contract_is_refused():
    with pytest.raises(ContractError, match="carries no action contract"):
        check_fit(None, WORLD)


def test_what_the_checkpoint_does_not_know_is_said_and_not_compared():
    bare = contract(fps=0.0, gripper=None, unknown=["names", "gripper", "rotation", "camera"])
    said = "does not say names, fps, camera, rotation, gripper_open, gripper_closed, gripper_delta, so"
    with pytest.warns(UserWarning, match=said):
        check_fit(bare, {**WORLD, "names": tuple("tuvwxyz")})


def test_unknown_tasks_and_splits_are_named(reaching):
    suite = reaching.Suite(reaching.ReachingConfig())
    with pytest.raises(UserError, match=r"no task 'wlak'\. Did you mean 'walk'"):
        jobs(Evaluate(tasks=["wlak"]), suite)
    with pytest.raises(UserError, match="It has: near, further"):
        jobs(Evaluate(splits=["everywhere"]), suite)
