"""Statistics of the robot's state: the data's, where pi0's weights bring none; they travel with the checkpoint."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from pixelvla_pi0.adapter import build
from pixelvla_pi0.config import Pi0Options

from pixelvla_core import checkpoint
from pixelvla_core.api import Component, Sample, StateBackbone, UserError, hookimpl
from pixelvla_core.contract import ActionContract, Statistics
from pixelvla_core.data.states import MOST, state_statistics
from pixelvla_core.errors import DataError
from pixelvla_core.plugins import GROUP, PluginManager
from pixelvla_core.recipe import compose
from pixelvla_core.train.run import train

STATE = 5


@dataclass(kw_only=True)
class FramesConfig:
    """Options: how many frames there are, how long the first ones' states are, and whether one of them is NaN."""

    frames: int = 24
    first: int = STATE
    nan: bool = False


class Frames:
    """Frames whose states have the mean 3 and the deviation 2, but the last value, which is always 7."""

    camera, fps = "front", 5.0

    def __init__(self, config: FramesConfig) -> None:
        self.config, self.fingerprint, self.looked = config, repr(config), 0

    def __len__(self) -> int:
        return self.config.frames

    def frame_key(self, index: int) -> str:
        return f"frame{index}"

    def contract(self) -> ActionContract:
        values = np.linspace(-1, 1, 20)[:, None].repeat(tiny_pi0.DIM, 1)
        names = tuple("abcdefg"[: tiny_pi0.DIM])
        facts = {"rule": "mean_std", "fps": 5.0, "camera": "front", "dataset": "frames"}
        return ActionContract(names=names, statistics=Statistics.of(values), mask=(True,) * len(names), **facts)

    def sample(self, index: int, *, horizon: int, rng: np.random.Generator, images: bool = True) -> Sample:
        self.looked += 1
        draw = np.random.default_rng(index)
        size = self.config.first if index < 3 else STATE
        state = (3 + 2 * draw.normal(size=size)).astype(np.float32)
        state[-1:] = np.nan if self.config.nan and index == 1 else 7.0
        return Sample(
            images={"front": draw.integers(0, 256, (40, 56, 3), dtype=np.uint8)} if images else {},
            instruction=tiny_pi0.TEXTS[index % 3],
            state=state if size else None,
            actions=draw.uniform(-1, 1, (horizon, tiny_pi0.DIM)).astype(np.float32),
            action_valid=np.ones(horizon, bool),
            key=f"frames/{index}",
        )


class Plugin:
    @hookimpl
    def pixelvla_datasets(self) -> list[Component]:
        return [Component(name="frames", target=f"{__name__}:Frames", config=f"{__name__}:FramesConfig")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states") / "base"
    tiny_pi0.write(folder)
    return folder


def trained(base: Path, out: Path, *overrides: str, resume: bool = False) -> checkpoint.Loaded:
    """One or two steps of pi0's own loss on the frames, and what is loaded from them."""
    from importlib.metadata import entry_points

    registry = PluginManager([*entry_points(group=GROUP), Plugin()]).registry
    few = [f"stages.sft.{key}={value}" for key, value in {"steps": 1, "batch_size": 2, "precision": "float32"}.items()]
    few += ["backbone.dtype=float32", "data.name=frames", "log.trackers=[]", "lora.rank=2"]
    layers = ["backbone/pi0", "head/native", "stage/sft"]
    train(compose(layers, [f"backbone.weights={base}", *few, *overrides], registry=registry), out, resume, registry)
    return checkpoint.load(out, registry=registry)


def inputs(loaded: checkpoint.Loaded, value: float = 5.0) -> torch.Tensor:
    """The state that the expert reads if every value is this one."""
    sample = replace(tiny_pi0.samples(1)[0], state=np.full(STATE, value, np.float32))
    return loaded.model.collate([sample], train=False).inputs["state"][0, :STATE]


def test_the_datas_statistics_are_taken_said_and_loaded(base, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*their own units.*")
        loaded = trained(base, tmp_path / "run")
    assert f"reads its {STATE} values by the data's" in " ".join(capsys.readouterr().out.split())
    states = np.stack([Frames(FramesConfig()).sample(i, horizon=1, rng=None).state for i in range(24)])
    wanted = (5 - states.mean(0)[:-1]) / states.std(0)[:-1]
    assert np.allclose(inputs(loaded)[:-1], wanted, atol=1e-4)
    assert inputs(loaded)[-1] == pytest.approx(5 - 7)  # never changes in the data: centred, not scaled
    assert loaded.model.backbone.spec.state_dim == STATE
    stored = json.loads((checkpoint.resolve(tmp_path / "run") / "stats.json").read_text())["state"]
    assert np.allclose(stored["mean"], states.mean(0))
    with pytest.raises(UserError, match="another robot's"):
        loaded.model.collate([tiny_pi0.samples(1)[0]], train=False)


def test_a_run_that_goes_on_and_one_that_starts_from_it_read_states_alike(base, tmp_path):
    first = trained(base, tmp_path / "run")
    again = trained(base, tmp_path / "run", "stages.sft.steps=2", resume=True)
    assert again.manifest.step == 2
    other = trained(base, tmp_path / "other", f"start={tmp_path / 'run'}")
    for loaded in (again, other):
        assert loaded.model.contract.state == first.model.contract.state
        assert torch.equal(inputs(loaded), inputs(first))


def test_a_start_that_has_learned_states_as_they_are_goes_on_so(base, tmp_path):
    start = tmp_path / "run"
    trained(base, start, "data.options.first=4")
    loaded = trained(base, tmp_path / "other", f"start={start}")
    assert loaded.model.contract.state is None
    assert torch.equal(inputs(loaded), torch.full((STATE,), 5.0))


@pytest.mark.parametrize(
    "override", ["backbone.options.state=false", "backbone.options.state_mean=[1,1,1,1,1]", "data.options.first=4"]
)
def test_the_datas_are_left_alone_where_they_are_not_asked_for_or_not_one(override, base, tmp_path):
    extra = ["backbone.options.state_std=[2,2,2,2,2]"] if "mean" in override else []
    loaded = trained(base, tmp_path / "run", override, *extra)
    assert loaded.model.contract.state is None
    assert "state" not in json.loads((checkpoint.resolve(tmp_path / "run") / "stats.json").read_text())
    expected = {"state": 0.0, "state_mean": 2.0, "first": 5.0}[override.split("=")[0].rsplit(".")[-1]]
    assert torch.equal(inputs(loaded), torch.full((STATE,), expected))


def test_an_adapter_with_statistics_keeps_them(base):
    own = build(Pi0Options(state_mean=[1.0] * STATE, state_std=[2.0] * STATE), weights=str(base))
    assert isinstance(own, StateBackbone)
    assert not own.lacks_states
    step = own.state.step
    own.take_states(Statistics.of(np.eye(STATE)))
    assert own.state.step is step


def test_no_more_frames_are_looked_at_than_needed():
    frames = Frames(FramesConfig(frames=3 * MOST))
    found = state_statistics(frames)
    assert frames.looked == MOST
    assert np.allclose(found.mean[:-1], 3, atol=0.15)
    assert np.allclose(found.std[:-1], 2, atol=0.15)
    one = state_statistics(Frames(FramesConfig(frames=1)))
    assert one.std == (0.0,) * STATE


def test_states_that_are_missing_or_not_finite():
    assert state_statistics(Frames(FramesConfig(first=0))) is None
    with pytest.raises(DataError, match=r"state of frames/1 is \[.*nan.*finite"):
        state_statistics(Frames(FramesConfig(nan=True)))


def test_contracts_of_earlier_versions_are_read_and_written_as_they_were():
    contract = Frames(FramesConfig()).contract()
    assert "state" not in contract.to_json()
    assert ActionContract.from_json(contract.to_json()) == contract
    with_state = replace(contract, state=Statistics.of(np.eye(STATE)))
    assert ActionContract.from_json(json.loads(json.dumps(with_state.to_json()))) == with_state
    with_state.check_compatible(contract)
