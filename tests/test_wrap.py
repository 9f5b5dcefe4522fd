"""``wrap``: a model around a base, its contract from the base's statistics."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import pixelvla_toy
from pixelvla_third_party.adapter import build
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core import checkpoint
from pixelvla_core.cli.main import main
from pixelvla_core.contract import Gripper, Rotation
from pixelvla_core.contract.contract import CONVENTIONS
from pixelvla_core.errors import CheckpointError, ContractError, RecipeError, UserError
from pixelvla_core.plugins import GROUP, PluginManager
from pixelvla_core.wrap import infer_contract, wrap

MANAGER = PluginManager(
    [*[entry for entry in entry_points(group=GROUP) if entry.name in ("core", "third_party")], pixelvla_toy]
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    build(ThirdPartyConfig(seed=3), weights=None).save_base(folder)
    return folder


def entry(scale: float = 1.0) -> dict:
    values = [scale] * 7
    zeros = [0.0] * 7
    return {
        "action": {
            "mean": zeros,
            "std": values,
            "min": [-scale] * 7,
            "max": values,
            "q01": [-scale] * 7,
            "q99": values,
            "mask": [True] * 6 + [False],
        }
    }


def with_statistics(**statistics: dict):
    backbone = build(ThirdPartyConfig(), weights=None)
    backbone.statistics = statistics
    return backbone


def test_wrapped_folder_is_a_checkpoint_without_stages(base: Path, tmp_path: Path, capsys) -> None:
    out = wrap("third_party", str(base), tmp_path / "w", manager=MANAGER)
    loaded = checkpoint.load(out, registry=MANAGER.registry)
    assert loaded.manifest.stages == ()
    assert loaded.manifest.step == 0
    assert loaded.model.pixel_encoder is not None
    assert "multiscale" in capsys.readouterr().out


def test_wrapped_base_is_the_base(base: Path, tmp_path: Path) -> None:
    out = wrap("third_party", str(base), tmp_path / "w", ["lora.rank=4"], manager=MANAGER)
    model = checkpoint.load(out, registry=MANAGER.registry).model
    plain = build(ThirdPartyConfig(), weights=str(base))
    sample = pixelvla_toy.Squares(pixelvla_toy.SquaresConfig(prompts=0.0)).sample(
        3, horizon=1, rng=np.random.default_rng(0)
    )
    batch = plain.collate([sample], train=False)
    expected = plain.hidden(plain.prefix(batch, plain.features(batch, ())))
    prefix = model.prefix(model.collate([sample], train=False))
    assert torch.allclose(model.backbone.hidden(prefix), expected, atol=1e-6)


def test_layers_replace_the_papers_parts(base: Path, tmp_path: Path) -> None:
    out = wrap("third_party", str(base), tmp_path / "w", ["head/native"], manager=MANAGER)
    assert checkpoint.load(out, registry=MANAGER.registry).model.pixel_encoder is None


def test_contract_of_a_single_dataset_is_inferred() -> None:
    contract = infer_contract(with_statistics(bridge=entry()), {"fps": 5.0})
    assert (contract.dataset, contract.fps, contract.mask[-1]) == ("bridge", 5.0, False)


def test_what_nobody_states_is_unknown_rather_than_none() -> None:
    contract = infer_contract(with_statistics(bridge=entry()), {"fps": 5.0})
    assert contract.unknown == CONVENTIONS
    assert (contract.gripper, contract.rotation) == (None, None)


NAMES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
GRIPPER = {"gripper_open": 1, "gripper_closed": 0}


def test_what_is_stated_is_known() -> None:
    facts = {"fps": 5.0, "names": NAMES, **GRIPPER, "rotation": "euler_xyz_delta"}
    contract = infer_contract(with_statistics(bridge=entry()), {**facts, "orientation": "rotate180", "camera": "eye"})
    assert contract.gripper == Gripper(index=6, open=1.0, closed=0.0)
    assert contract.rotation == Rotation(kind="euler_xyz", start=3, delta=True)
    assert (contract.orientation, contract.camera, contract.unknown) == ("rotate180", "eye", ("frame",))


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (NAMES, {"gripper", "rotation"}),
        (["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"], {"gripper"}),
        ([f"joint_{i}" for i in range(7)], set()),
    ],
)
def test_names_settle_what_they_say_and_no_more(names: list[str], unknown: set[str]) -> None:
    contract = infer_contract(with_statistics(bridge=entry()), {"names": names})
    assert set(contract.unknown) - {"camera", "orientation", "frame"} == unknown


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (GRIPPER, "gripper_open and gripper_closed cannot be placed without the names"),
        ({"rotation": "none"}, "rotation cannot be placed without the names"),
        ({"names": NAMES, "gripper_open": 1}, "gripper_open is given, but gripper_closed is not"),
        ({"names": NAMES, "gripper_open": "wide", "gripper_closed": 0}, "gripper_open is 'wide'; expected a number"),
        ({"names": [f"joint_{i}" for i in range(7)], **GRIPPER}, "none of the action's dimensions is named after a"),
        ({"names": ["grip", *NAMES[1:]]}, "2 of the action's dimensions are named after a gripper"),
        ({"names": NAMES, "rotation": "euler"}, "rotation representation is 'euler'"),
        ({"names": NAMES, "rotation": 3}, "rotation is 3; expected one of"),
        ({"names": NAMES[:6]}, "differ in dimensions"),
        ({"names": "x"}, "names is 'x'; expected a list"),
    ],
)
def test_what_cannot_be_stated_is_refused(facts: dict, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        infer_contract(with_statistics(bridge=entry()), facts)


def test_wrap_lists_what_is_known_and_what_is_not(base: Path, tmp_path: Path, capsys) -> None:
    facts = ["contract.key=near", "contract.names=[x,y,z,roll,pitch,yaw,gripper]", "contract.rotation=none"]
    values = ["contract.gripper_open=1", "contract.gripper_closed=-1"]
    wrap("stated", str(base), tmp_path / "w", [*facts, *values], manager=MANAGER)
    said = " ".join(capsys.readouterr().out.split())
    assert "names x y z roll pitch yaw gripper, gripper open at 1, closed at -1, rotation none." in said
    assert "Not known: fps, camera, orientation, frame." in said


def test_statistics_of_another_width_make_a_head_of_that_width(base: Path, tmp_path: Path) -> None:
    out = wrap("stated", str(base), tmp_path / "w", ["contract.key=narrow"], manager=MANAGER)
    assert checkpoint.load(out, registry=MANAGER.registry).model.contract.dim == 5


def test_several_datasets_need_a_name() -> None:
    with pytest.raises(ContractError, match=r"contract\.key=NAME"):
        infer_contract(with_statistics(bridge=entry(), fractal=entry()), {})


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(ContractError, match="Did you mean 'bridge_orig'"):
        infer_contract(with_statistics(bridge_orig=entry(), fractal=entry()), {"key": "bridge_ori"})


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"fps": "abc"}, "fps is 'abc'; expected a number"),
        ({"fps": -3}, "fps is -3"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": True}, "fps is True"),
        ({"camera": 3}, "camera is 3; expected a name"),
        ({"orientation": "up"}, "image orientation is 'up'.*Expected one of upright"),
    ],
)
def test_a_fact_that_cannot_be_is_refused_by_its_name(fact: dict, words: str) -> None:
    with pytest.raises(ContractError, match=words) as caught:
        infer_contract(with_statistics(bridge=entry()), fact)
    assert "contract.key" not in str(caught.value)


def test_a_fact_is_yaml(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'contract\.fps=\[' cannot be read"):
        wrap("third_party", str(base), tmp_path / "w", ["contract.fps=["], manager=MANAGER)


def test_a_base_that_can_never_act_is_refused(tmp_path: Path) -> None:
    broken = build(ThirdPartyConfig(), weights=None)
    name, parameter = list(broken.module.named_parameters())[-1]
    parameter.data.view(-1)[0] = torch.nan
    broken.save_base(tmp_path / "base")
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN"):
        wrap("third_party", str(tmp_path / "base"), tmp_path / "w", manager=MANAGER)
    assert not (tmp_path / "w").exists()


def test_no_statistics_no_contract(base: Path, tmp_path: Path, capsys) -> None:
    wrap("third_party", str(base), tmp_path / "w", manager=MANAGER)
    assert "No action contract" in capsys.readouterr().out


def test_unknown_fact_gets_the_nearest(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'fps'"):
        wrap("third_party", str(base), tmp_path / "w", ["contract.fp=5"], manager=MANAGER)


def test_an_earlier_model_is_replaced_unless_something_else_lies_there(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "w"
    for layers in (["head/native"], ["encoder/pixelvla", "head/l1"]):
        wrap("third_party", str(base), out, layers, manager=MANAGER)
    assert checkpoint.load(out, registry=MANAGER.registry).model.pixel_encoder is not None
    (out / "eval").mkdir()
    (out / "eval" / "results.json").write_text("{}")
    with pytest.raises(UserError, match="not overwritten"):
        wrap("third_party", str(base), out, manager=MANAGER)
    assert (out / "eval" / "results.json").exists()


def test_what_is_no_wrapped_model_is_not_overwritten(base: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not overwritten"):
        wrap("third_party", str(base), tmp_path, manager=MANAGER)


def test_a_world_that_turns_otherwise_refuses_a_wrapped_base_on_the_command_line(tmp_path: Path, capsys) -> None:
    out, names = str(tmp_path / "w"), "contract.names=[dx,dy,dz,rx,ry,rz,gripper]"
    wrapping = ["wrap", "--base", "openvla", "--weights", "mini", "--out", out, "head/native", names]
    assert main([*wrapping, "contract.rotation=axis_angle_delta", "contract.fps=5"]) == 0
    assert main(["eval", out, "--env", "tabletop", "--episodes", "1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "rotation: 'axis_angle_delta' in the checkpoint, 'euler_xyz_delta' in the environment" in said
    assert "names: ['dx', 'dy', 'dz', 'rx', 'ry', 'rz', 'gripper'] in the checkpoint" in said
    assert "fps:" not in said
