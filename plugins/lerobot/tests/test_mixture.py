"""Two recordings as one dataset."""

from __future__ import annotations

import numpy as np
import pytest
from cups import HEIGHT, LENGTHS, WIDTH

from pixelvla_core.data.build import build_dataset
from pixelvla_core.errors import ContractError
from pixelvla_core.plugins import PluginManager


@pytest.fixture
def mix(recorded, annotate, cache):
    """Videos without annotations and pictures with them, seen by different cameras."""
    sidecar = annotate(recorded["images"])

    def build(weights=(None, None), **changes):
        videos = {"root": str(recorded["videos"]), "camera": "wrist", "image_size": 32, **changes}
        images = {"root": str(recorded["images"]), "annotations": str(sidecar), "prompts": {"box": 1}}
        parts = {
            name: {"name": "lerobot", "options": options, "weight": weight}
            for name, options, weight in zip(("videos", "images"), (videos, images), weights, strict=True)
        }
        return build_dataset("mixture", {"parts": parts}, PluginManager.load().registry)

    return build


def test_both_recordings_are_seen_in_their_shares(mix):
    data = mix(weights=(1, 3), episodes=[1])
    frames = LENGTHS[1], sum(LENGTHS)
    assert len(data) == frames[0] + 3 * frames[0]
    samples = [data.sample(i, horizon=4, rng=np.random.default_rng(i)) for i in range(len(data))]
    assert {sample.images["front"].shape for sample in samples[: frames[0]]} == {(32, 32, 3)}
    assert {sample.images["front"].shape for sample in samples[frames[0] :]} == {(HEIGHT, WIDTH, 3)}
    assert [bool(sample.prompts) for sample in samples] == [index >= frames[0] for index in range(len(data))]
    assert len({sample.key for sample in samples[frames[0] :]}) == frames[1]
    again = data.sample(20, horizon=4, rng=np.random.default_rng(20))
    assert again.prompts == samples[20].prompts
    assert data.fps == 5.0


def test_statistics_cover_both(mix):
    data = mix()
    one, other = (part.contract().statistics for part in data.parts.values())
    both = data.contract().statistics
    assert both.q99 == tuple(map(max, one.q99, other.q99))
    assert both.mean == pytest.approx([(a + b) / 2 for a, b in zip(one.mean, other.mean, strict=True)])


def test_a_gripper_that_works_the_other_way_round_is_refused(mix):
    with pytest.raises(ContractError, match=r"gripper: .*parts.videos.*parts.images"):
        mix(gripper_open=0.0, gripper_closed=1.0)


def test_a_batch_may_hold_images_of_both_sizes(mix):
    from pixelvla_third_party.adapter import build
    from pixelvla_third_party.config import ThirdPartyConfig

    data = mix()
    adapter = build(ThirdPartyConfig(), weights=None)
    samples = [data.sample(index, horizon=4, rng=np.random.default_rng(index)) for index in (0, len(data) - 1)]
    assert {sample.images["front"].shape for sample in samples} == {(32, 32, 3), (HEIGHT, WIDTH, 3)}
    assert len(adapter.collate(samples, train=True).geometry["front"]) == 2
