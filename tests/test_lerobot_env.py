"""pixelvla's environments in LeRobot's own tools: the same episodes, prompts and successes as `pixelvla eval`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import astuple
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lerobot.envs.configs import EnvConfig
from lerobot.envs.factory import make_env
from lerobot.envs.utils import env_to_policy_features, preprocess_observation
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_pixelvla.environment import PixelVLAEnv, PixelVLAEnvConfig
from lerobot_policy_pixelvla.export import export
from lerobot_policy_pixelvla.observation import to_samples
from pixelvla_tabletop.config import TabletopConfig
from pixelvla_tabletop.suite import TabletopSuite

from pixelvla_core.errors import RecipeError, UserError
from pixelvla_core.evaluate.episode import Rollout
from pixelvla_core.evaluate.records import Job
from pixelvla_core.evaluate.run import evaluate
from pixelvla_core.evaluate.trackers import Hold
from pixelvla_core.prompts import Mask
from pixelvla_core.wrap import wrap

pytestmark = pytest.mark.gl
OPTIONS = {"max_steps": 30, "image_size": 112}
ACTION = np.array([0.01, 0.02, -0.01, 0, 0, 0.1, 1], np.float32)


def config(**changes) -> PixelVLAEnvConfig:
    return PixelVLAEnvConfig(**{"task": "pick", "options": OPTIONS, **changes})


def rollout(prompt: str, seed: int) -> Rollout:
    """The episode as `pixelvla eval` runs it."""
    env = TabletopSuite(TabletopConfig(**OPTIONS)).make("pick", "visual_matching")
    job = Job(task="pick", split="visual_matching", prompt=prompt, episode=0, seed=seed)
    return Rollout(job=job, env=env, camera="front", segmenter=None, tracker=Hold())


def test_lerobot_finds_the_environment_by_its_conventions():
    register_third_party_plugins()
    assert EnvConfig.get_choice_class("pixelvla") is PixelVLAEnvConfig


@pytest.mark.parametrize("prompt", ["none", "point", "line", "box", "mask", "point+box"])
def test_what_a_policy_sees_is_what_pixelvla_eval_shows_it(prompt):
    """Through LeRobot's vector environments and its own conversion of observations, before and after a step."""
    env = make_env(config(prompt=prompt), n_envs=2)["tabletop"][0]
    rollouts = [rollout(prompt, seed) for seed in (3, 4)]
    observation, _ = env.reset(seed=[3, 4])
    for steps in range(2):
        batch = preprocess_observation(observation) | {"task": list(env.call("task_description"))}
        for sample, running in zip(to_samples(batch, ["front"]), rollouts, strict=True):
            wanted = running.look()
            assert running.steps == steps
            assert np.array_equal(sample.images["front"], wanted.images["front"])
            assert sample.instruction == wanted.instruction
            assert np.array_equal(sample.state, wanted.state)
            assert _plain(sample.prompts) == _plain(wanted.prompts)
            assert np.array_equal(sample.masks.get("front", ()), wanted.masks.get("front", ()))
            running.act(ACTION[None])
        observation, *_ = env.step(np.stack([ACTION] * 2))
    env.close()


def _plain(prompts: dict) -> list:
    """Coordinates in float32, as they travel; in the order of kinds, which the keys do not keep."""
    marks = [mark.array if isinstance(mark, Mask) else np.float32(astuple(mark)) for mark in prompts.get("front", ())]
    return sorted(mark.tolist() for mark in marks)


def test_gymnasiums_own_check_passes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(Box action space|Box observation space)")
        check_env(PixelVLAEnv(config(prompt="point"), "pick"), skip_render_check=True)


def test_the_config_knows_its_features():
    features = env_to_policy_features(config())
    assert {name: feature.shape for name, feature in features.items()} == {
        "observation.images.front": (3, 112, 112),
        "observation.state": (8,),
        "action": (7,),
    }
    assert config(task="all").tasks == ["pick", "move_near", "open_drawer", "close_drawer"]


def test_environments_side_by_side_are_processes():
    env = make_env(config(prompt="box"), n_envs=2, use_async_envs=True)["tabletop"][0]
    assert isinstance(env, gym.vector.AsyncVectorEnv)
    observation, _ = env.reset(seed=[3, 4])
    assert observation["prompts.front.boxes"].shape == (2, 1, 4)
    env.close()


def test_mistakes_are_one_paragraph():
    with pytest.raises(UserError, match=r"has no task 'pik'\. Did you mean"):
        config(task="pik")
    with pytest.raises(UserError, match=r"--env\.prompt is 'pont'"):
        config(prompt="pont")
    with pytest.raises(UserError, match="environment"):
        config(suite="tabeltop")
    with pytest.raises(RecipeError, match="max_step"):
        config(options={"max_step": 3})


@pytest.mark.slow
def test_lerobot_eval_finds_the_successes_of_pixelvla_eval(tmp_path):
    """The embedded base in LeRobot's own script, episode by episode."""
    wrap("openvla", "mini", tmp_path / "run", ["head/native"])
    env = {"name": "tabletop", "options": OPTIONS}
    wanted = evaluate(
        tmp_path / "run",
        env=_part(env),
        tasks=["close_drawer", "pick"],
        splits=["visual_matching"],
        episodes=3,
        prompts=["none"],
        workers=1,
        seed=5,
        quiet=True,
    )
    export(tmp_path / "run", tmp_path / "policy")
    words = [
        f"--policy.path={tmp_path / 'policy'}",
        "--policy.device=cpu",
        "--env.type=pixelvla",
        "--env.task=close_drawer,pick",
        "--env.options={max_steps: 30, image_size: 112}",
        "--eval.n_episodes=3",
        "--eval.batch_size=3",
        "--seed=5",
        f"--output_dir={tmp_path / 'out'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_eval", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(Path(tmp_path / "out" / "eval_info.json").read_text())
    found = [task["metrics"]["successes"] for task in info["per_task"]]
    by_task = {
        name: [record.success for record in wanted.records if record.job.task == name]
        for name in ("close_drawer", "pick")
    }
    assert found == list(by_task.values())
    assert any(map(any, found))


def _part(env: dict):
    from pixelvla_core.recipe import Part

    return Part(env["name"], env["options"])
