"""The mixture: shares, evenly repeated frames, one contract, and training on it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.contract.statistics import Statistics
from pixelvla_core.data.build import build_dataset
from pixelvla_core.data.dataset import Dataset
from pixelvla_core.data.mixture import Mixture, counts, merged
from pixelvla_core.errors import ContractError, PluginError, RecipeError

sys.path.insert(0, str(Path(__file__).with_name("toy")))
from train_toy import recipe, registry

REGISTRY = registry()


def mixture(weights=(None, None), frames=(12, 30), first=(), second=(), **options) -> Mixture:
    """Two sets of squares."""
    parts = {
        name: {"name": "squares", "options": {"frames": count, **dict(own)}, "weight": weight}
        for name, count, own, weight in zip(("small", "large"), frames, (first, second), weights, strict=True)
    }
    return build_dataset("mixture", {"parts": parts, **options}, REGISTRY)


def shown(data: Mixture) -> Counter:
    """How often an epoch shows each frame of each part."""
    return Counter(data.frame_key(index).partition("#")[0] for index in range(len(data)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 100)), min_size=1, max_size=4),
)
def test_an_epoch_has_the_shares_asked_for_and_misses_nothing(parts):
    sizes, weights = zip(*parts, strict=True)
    found = counts(sizes, weights)
    assert all(count >= size for count, size in zip(found, sizes, strict=True))
    assert any(count == size for count, size in zip(found, sizes, strict=True))
    for count, weight in zip(found, weights, strict=True):
        assert abs(count / sum(found) - weight / sum(weights)) < 0.5 * len(found) / sum(found) + 1e-9
    assert counts(sizes, [None] * len(sizes)) == list(sizes)


def test_frames_come_round_evenly_and_every_index_has_its_own_name():
    data = mixture(weights=(3, 1))
    assert isinstance(data, Dataset)
    assert len(data) == 90 + 30
    found = shown(data)
    assert {found[f"large/squares/{i}"] for i in range(30)} == {1}
    assert {found[f"small/squares/{i}"] for i in range(12)} == {7, 8}
    assert len({data.frame_key(index) for index in range(len(data))}) == len(data)
    assert shown(mixture()) == Counter(
        [f"{n}/squares/{i}" for n, s in (("small", 12), ("large", 30)) for i in range(s)]
    )


def test_samples_are_those_of_the_parts_under_one_camera_name():
    data = mixture(camera="eye", second={"prompts": 1.0})
    for index in (0, 11, 12, 41):
        part, frame = ("small", index) if index < 12 else ("large", index - 12)
        one, other = (
            each.sample(at, horizon=3, rng=np.random.default_rng(index))
            for each, at in ((data, index), (data.parts[part], frame))
        )
        assert list(one.images) == ["eye"]
        np.testing.assert_array_equal(one.images["eye"], other.images["front"])
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.prompts.get("eye") == other.prompts.get("front")
        assert one.masks.keys() == ({"eye"} if other.masks else set())
    assert data.camera == data.contract().camera == "eye"


def test_statistics_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (300, 2)), rng.normal(3, 2, (100, 2))
    both = Statistics.of(np.concatenate([first, second]))
    found = merged([Statistics.of(first), Statistics.of(second)], [300, 100])
    for name in ("mean", "std", "min", "max"):
        assert getattr(found, name) == pytest.approx(getattr(both, name))
    for values in (first, second):
        inside = (values >= found.q01) & (values <= found.q99)
        assert (inside.mean(0) >= 0.98).all()


def test_parts_whose_actions_mean_something_else_are_refused():
    with pytest.raises(ContractError, match=r"fps: 5.0 in parts.small, 3.0 in parts.large"):
        mixture(second={"fps": 3.0})
    data = mixture(second={"fps": 3.0}, mixed_fps=True)
    assert data.contract().fps == data.fps == 0.0
    assert mixture(second={"fps": 0.0}).contract().fps == 0.0, "what one part does not know, the mixture does not"
    with pytest.raises(ContractError, match=r"orientation: 'upright' in parts.small, 'rotate180' in parts"):
        mixture(second={"orientation": "rotate180"})


def test_what_it_is_made_of_tells_mixtures_apart():
    prints = [mixture().fingerprint, mixture(weights=(1, 3)).fingerprint, mixture(frames=(12, 31)).fingerprint]
    assert len(set(prints)) == 3
    assert mixture().fingerprint == prints[0] == mixture().contract().fingerprint


def test_mistakes_are_named_with_their_place():
    with pytest.raises(RecipeError, match=r"data.options.parts.small.options.frame'.*Did you mean 'frames'"):
        mixture(first={"frame": 3})
    with pytest.raises(RecipeError, match=r"data.options.parts have the weights .*none at all"):
        mixture(weights=(1, None))
    with pytest.raises(RecipeError, match="above 0"):
        mixture(weights=(1, 0))
    with pytest.raises(RecipeError, match=r"data.options.parts is empty"):
        build_dataset("mixture", {"parts": {}}, REGISTRY)
    with pytest.raises(PluginError, match="cubes"):
        build_dataset("mixture", {"parts": {"a": {"name": "cubes"}}}, REGISTRY)


def test_a_mixture_trains_with_cached_features(tmp_path, monkeypatch):
    from pixelvla_core.checkpoint import load
    from pixelvla_core.train.run import train

    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    parts = "data.options.parts={a: {name: squares, weight: 1}, b: {name: squares, options: {frames: 9}, weight: 1}}"
    short = ["run=[pue]", "stages.pue.steps=30", "stages.pue.cache=features", "stages.pue.grad_accum=1"]
    mixed = recipe("data.name=mixture", parts, *short, "stages.pue.save_every=30")
    train(mixed, tmp_path / "run", registry=REGISTRY)
    loaded = load(tmp_path / "run", registry=REGISTRY)
    assert loaded.manifest.parts["dataset"].name == "mixture"
    assert loaded.model.contract.dataset == "squares+squares"
    assert replace(loaded.recipe, evaluate=mixed.evaluate) == mixed
