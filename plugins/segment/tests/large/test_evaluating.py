"""The segmenters of an evaluation, by their names, in an episode of the tabletop; missing weights end it beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from pixelvla_core.api import UserError, configure
from pixelvla_core.evaluate.episode import Rollout
from pixelvla_core.evaluate.records import Job
from pixelvla_core.evaluate.workers import Setup, Worker
from pixelvla_core.plugins import PluginManager

REGISTRY = PluginManager.load().registry


def built(kind: str, name: str, options: dict):
    component = REGISTRY.get(kind, name)
    return component.build(configure(component, options, f"evaluate.{kind}.options"))


@pytest.mark.gl
@pytest.mark.parametrize("prompt", ["point", "line", "box", "point+box"])
@pytest.mark.parametrize("name", ["edgetam", "sam2-tiny"])
def test_an_episode_with_the_model(name, prompt, request):
    folder = request.getfixturevalue({"edgetam": "edgetam_folder", "sam2-tiny": "sam2_folder"}[name])
    suite = built("environment", "tabletop", {"max_steps": 4})
    rollout = Rollout(
        job=Job(task="pick", split="train", prompt=prompt, episode=0, seed=0),
        env=suite.make("pick", "train"),
        camera="front",
        segmenter=built("segmenter", name, {"model": str(folder), "device": "cpu"}),
        tracker=built("tracker", "hold", {}),
    )
    sample = rollout.look()
    assert sample.masks["front"].shape == (1, *sample.images["front"].shape[:2])
    assert 0 <= rollout.iou < 1  # of random weights
    while not rollout.done:
        rollout.act(np.zeros((2, 7), np.float32))
    assert rollout.record().seconds["segment"] > 0


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("segmenter", "edgetam", "hf download yonigozlan/EdgeTAM-hf"),
        ("segmenter", "sam2-tiny", "hf download facebook/sam2.1-hiera-tiny"),
        ("segmenter", "sam2", "hf download facebook/sam2.1-hiera-large|not installed"),
        ("segmenter", "fastsam", "AGPL-3.0.*pip install|curl -L -o"),
        ("tracker", "sam2", "hf download facebook/sam2.1-hiera-large"),
    ],
)
def test_a_worker_refuses_missing_weights_before_an_episode_or_a_policy(kind, name, said, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    component = REGISTRY.get(kind, name)
    with pytest.raises(UserError, match=said):
        built(kind, name, {})
    if kind == "segmenter":
        setup = Setup(
            policy=lambda: pytest.fail("the policy was loaded"),
            environment=(
                REGISTRY.get("environment", "tabletop"),
                REGISTRY.get("environment", "tabletop").load_config()(),
            ),
            segmenter=(component, component.load_config()()),
            tracker=(REGISTRY.get("tracker", "hold"), None),
            out=tmp_path,
        )
        with pytest.raises(UserError, match=said):
            Worker(setup, connection=None)
