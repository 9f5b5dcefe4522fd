"""pixelvla as a policy of LeRobot, made and run by LeRobot's own functions, on pi0 and on a base that is none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).with_name("standins")))
import tiny_pi0
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.policies.factory import get_policy_class, make_policy_config
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_pixelvla.export import export
from lerobot_policy_pixelvla.observation import to_observation, to_samples
from pixelvla_third_party.adapter import build as build_third_party
from pixelvla_third_party.config import ThirdPartyConfig

from pixelvla_core.errors import DataError, UserError
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.wrap import wrap

HORIZON, DIM = tiny_pi0.HORIZON, tiny_pi0.DIM
OBSERVATION = "observation."
REGION = np.zeros((48, 64), bool)
REGION[10:30, 20:40] = True


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    register_third_party_plugins()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint around each base: pi0 with its own head, the third party's with the L1 head."""
    folder = tmp_path_factory.mktemp("lerobot")
    tiny_pi0.write(folder / "pi0_base")
    build_third_party(ThirdPartyConfig(), weights=None).save_base(folder / "third_party_base")
    parts = {"pi0": ["head/native"], "third_party": ["head/l1", f"action.horizon={HORIZON}"]}
    for base, layers in parts.items():
        wrap(base, str(folder / f"{base}_base"), folder / base, ["encoder/pixelvla", *layers, "lora.rank=2"])
    return {base: folder / base for base in parts} | {"pi0_base": folder / "pi0_base"}


def metadata(names: bool = True) -> SimpleNamespace:
    """What LeRobot knows of a dataset: features, statistics, frame rate."""
    values = np.linspace(0.0, 1.0, DIM)
    stats = {name: values + i for i, name in enumerate(("min", "q01", "mean", "std", "q99", "max"))}
    features = {
        "observation.images.front": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (DIM,), "names": [f"a{i}" for i in range(DIM)]},
    }
    states = {name: np.full(8, value) for name, value in zip(stats, (0, 1, 2, 4, 8, 9), strict=True)}
    both = {"action": stats, "observation.state": states}
    return SimpleNamespace(features=features, stats=both, fps=5, repo_id="me/cups")


def make(checkpoint: Path, **changes):
    """By LeRobot's factory, as ``lerobot-train --policy.type=pixelvla`` does."""
    config = make_policy_config(
        "pixelvla", checkpoint=str(checkpoint), chunk_size=HORIZON, n_action_steps=2, device="cpu", **changes
    )
    return make_policy(config, ds_meta=metadata())


def batch(count: int = 3) -> dict:
    """What LeRobot's data loader hands out."""
    samples = tiny_pi0.samples(count)
    found = tiny_pi0.lerobot_batch(samples)
    pad = torch.zeros(count, HORIZON, dtype=torch.bool)
    return {**found, "action_is_pad": pad, "task": [sample.instruction for sample in samples]}


def seen(given: dict) -> dict:
    return {name: value for name, value in given.items() if not name.startswith("action")}


def test_lerobot_finds_the_policy_by_its_conventions():
    assert "pixelvla" in PreTrainedConfig.get_known_choices()
    assert get_policy_class("pixelvla").__name__ == "PixelVLAPolicy"


def test_without_prompts_it_is_lerobots_pi0_to_the_last_bit(wrapped):
    policy, stock, given = make(wrapped["pi0"]), tiny_pi0.stock(wrapped["pi0_base"]), batch()
    # LeRobot's own processors normalise actions and states around its policy.
    policy.model.contract = policy.model.backbone.state.step = None
    stock.requires_grad_(False)
    policy.eval()
    torch.manual_seed(3)
    wanted, _ = stock.forward(given)
    torch.manual_seed(3)
    assert torch.equal(policy.forward(given)[0], wanted)
    torch.manual_seed(3)
    wanted = stock.predict_action_chunk(given)
    torch.manual_seed(3)
    assert torch.equal(policy.predict_action_chunk(seen(given)), wanted)


@pytest.mark.parametrize("base", ["pi0", "third_party"])
def test_it_learns_saves_and_loads_by_lerobots_functions(base, wrapped, tmp_path):
    policy, given = make(wrapped[base], optimizer_lr=1e-2), batch()
    given |= {name: torch.stack([value] * 3) for name, value in to_observation({"front": [Point(0.3, 0.4)]}).items()}
    given |= {"observation.masks.front": torch.from_numpy(np.stack([REGION[None]] * 3))}
    policy.train()
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    for _ in range(2):
        loss, logged = policy.forward(given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert logged["loss"] == pytest.approx(loss.item())
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    parts = {name.split(".")[1] for name in changed if ".lora_" not in name}
    assert parts == {"pixel_encoder", "prompt_encoder"}
    assert any(".lora_" in name for name in changed)

    policy.save_pretrained(tmp_path / "saved")
    config = PreTrainedConfig.from_pretrained(tmp_path / "saved")
    config.pretrained_path = tmp_path / "saved"
    again = make_policy(config, ds_meta=metadata())
    assert type(again) is type(policy)
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.model.contract == policy.model.contract
    torch.manual_seed(3)
    wanted = policy.predict_action_chunk(seen(given))
    torch.manual_seed(3)
    assert torch.equal(again.predict_action_chunk(seen(given)), wanted)


SAVE_FOR_EVER = """
import sys
from lerobot_policy_pixelvla import PixelVLAConfig
from lerobot_policy_pixelvla.modeling_pixelvla import PixelVLAPolicy
config = PixelVLAConfig(checkpoint=sys.argv[1], chunk_size=int(sys.argv[2]), n_action_steps=1, device="cpu")
policy = PixelVLAPolicy(config)
for number in range(10**6):
    for parameter in policy.get_optim_params():
        parameter.detach().fill_(number)
    policy.save_pretrained(sys.argv[3])
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_policy_that_was_killed_while_it_was_saved_is_whole_and_leaves_nothing_behind(wrapped, tmp_path):
    out = tmp_path / "saved"
    words = [sys.executable, "-c", SAVE_FOR_EVER, str(wrapped["third_party"]), str(HORIZON), str(out)]
    for saves in (1, 3):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as saving:
            for _ in range(saves):
                saving.stdout.readline()
            saving.kill()
        policy = get_policy_class("pixelvla").from_pretrained(out)
        policy.model.train_only(["pixel", "prompt", "lora"])
        assert len({value.item() for parameter in policy.get_optim_params() for value in parameter.unique()}) == 1
    (out / ".pixelvla.0123abcd.partial").mkdir()
    policy.save_pretrained(out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "pixelvla"]


def test_an_exported_policy_learns_nothing_until_groups_are_named(tmp_path):
    base = build_third_party(ThirdPartyConfig(), weights=None)
    base.save_base(tmp_path / "base")
    parts = ["encoder/pixelvla", "head/l1", f"action.horizon={HORIZON}", "lora.rank=0"]
    wrap("third_party", str(tmp_path / "base"), tmp_path / "wrapped", parts)
    out = export(tmp_path / "wrapped", tmp_path / "policy")
    config = PreTrainedConfig.from_pretrained(out)
    config.pretrained_path = out
    policy = make_policy(config, ds_meta=metadata())
    assert not any(parameter.requires_grad for parameter in policy.parameters())
    with pytest.raises(UserError, match=r'--policy\.train_groups=\["pixel","prompt"\]'):
        policy.get_optim_params()

    config.train_groups = ["pixel", "llm"]
    policy = make_policy(config, ds_meta=metadata())
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    given = batch() | {"observation.masks.front": torch.from_numpy(np.stack([REGION[None]] * 3))}
    policy.forward(given)[0].backward()
    optimizer.step()
    policy.save_pretrained(tmp_path / "saved")
    again = get_policy_class("pixelvla").from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in again.state_dict().items())
    fresh = base.module.state_dict()
    changed = {name for name, value in again.model.base.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} <= {"embedding", "blocks", "norm"}


def test_prompts_and_masks_travel_as_observation_keys(wrapped):
    policy, given = make(wrapped["pi0"]), seen(batch(1))
    kinds = (
        Point(0.3, 0.4),
        Point(0.3, 0.4, False),
        Box(0.2, 0.2, 0.6, 0.7),
        Line(((0.1, 0.2), (0.5, 0.5))),
        Mask(REGION),
    )
    marks = [{}, *(to_observation({"front": [kind]}) for kind in kinds), to_observation({}, {"front": REGION[None]})]
    chunks = []
    for mark in marks:
        torch.manual_seed(3)
        chunks.append(policy.predict_action_chunk({**given, **mark}))
    for i, chunk in enumerate(chunks):
        assert not any(torch.equal(chunk, other) for other in chunks[i + 1 :])


def test_what_was_marked_comes_back_from_the_keys():
    short, long = Line(((0.1, 0.2), (0.5, 0.5))), Line(((0.0, 0.0), (0.25, 0.5), (1.0, 0.75)))
    marks = (Point(0.25, 0.5), Point(0.5, 0.25, False), Box(0.25, 0.25, 0.5, 0.75), short, long, Mask(REGION))
    given = {**seen(batch(1)), **to_observation({"front": marks}, {"front": REGION[None]})}
    (sample,) = to_samples(given, ["front"])
    found = sample.prompts["front"]
    assert found[:3] == marks[:3]
    for line, wanted in zip(found[3:5], (short, long), strict=True):
        assert np.allclose(line.vertices, wanted.vertices)
    assert np.array_equal(found[5].array, REGION)
    assert np.array_equal(sample.masks["front"], REGION[None])
    assert np.array_equal(sample.images["front"], tiny_pi0.samples(1)[0].images["front"])


def points(*rows: list[float]) -> dict[str, torch.Tensor]:
    return {"observation.prompts.front.points": torch.tensor([rows])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": ["pick"]}, "2 by its images, 1 by its tasks"),
        ({"observation.state": torch.zeros(1, 8)}, r"observation.state is float32\[1, 8\]; expected 2 rows"),
        ({"observation.state": torch.zeros(8)}, "expected 2 rows"),
        ({"observation.images.front": torch.zeros(2, 4, 4, 3)}, r"float32\[2, 4, 4, 3\]; expected float\[B, 3, height"),
        ({"observation.images.front": torch.zeros(3, 4, 4)}, r"expected float\[B, 3, height"),
        ({"observation.images.front": torch.full((2, 3, 4, 4), 255.0)}, "from 255 to 255.*by 255"),
        ({"observation.images.front": torch.full((2, 3, 4, 4), torch.nan)}, "from nan to nan"),
        ({"observation.images.front": "a picture"}, "is of type str; expected a tensor"),
        (points([0.3, 0.4, 1.0]), r"points is float32\[1, 1, 3\]; expected \[2, K, 3\], or \[K, 3\] for every row"),
        ({"observation.prompts.front.points": torch.zeros(2, 1, 2)}, r"expected \[2, K, 3\]"),
        ({"observation.prompts.front.points": torch.zeros(3)}, r"expected \[2, K, 3\]"),
        ({"observation.prompts.front.points": torch.tensor([[0.3, 0.4, 2.0]])}, "labels other than 1 and 0"),
        ({"observation.prompts.front.points": torch.tensor([[0.3, torch.nan, 1.0]])}, "only some are NaN"),
        ({"observation.prompts.front.boxes": torch.zeros(2, 1, 3)}, r"expected \[2, K, 4\]"),
        ({"observation.prompts.front.lines": torch.zeros(2, 2)}, r"expected \[2, K, V, 2\]"),
        ({"observation.prompts.front.masks": torch.ones(4, 4)}, r"expected \[2, K, height, width\]"),
        ({"observation.prompts.front.masks": torch.full((1, 4, 4), 0.5)}, "other than 0 and 1. Threshold"),
        ({"observation.masks.front": torch.full((1, 4, 4), torch.nan)}, "other than 0 and 1"),
        ({"observation.prompts.front.point": torch.zeros(1, 3)}, "Did you mean 'points'"),
        ({"observation.prompts.fornt.points": torch.zeros(1, 3)}, "no camera 'fornt'.*Did you mean 'front'"),
        ({"observation.masks.top": torch.ones(1, 4, 4)}, "no camera 'top'.*rename_map"),
        ({"action": torch.zeros(2, 7)}, r"expected float\[2, steps, values\]"),
        ({"action": torch.full((2, HORIZON, DIM), torch.inf)}, "NaN or infinite"),
        ({"action": torch.zeros(2, HORIZON, DIM), "action_is_pad": torch.zeros(2, 1)}, r"expected bool\[2, "),
    ],
)
def test_keys_that_do_not_hold_what_they_should_are_named(change, words):
    given = {"observation.images.front": torch.zeros(2, 3, 4, 4), "task": ["pick", "place"], **change}
    with pytest.raises(DataError, match=words):
        to_samples(given, ["front"])


def test_a_batch_of_another_size_than_the_second_cameras_is_refused():
    given = {f"observation.images.{name}": torch.zeros(rows, 3, 4, 4) for name, rows in (("front", 2), ("wrist", 1))}
    with pytest.raises(DataError, match=r"images.wrist is uint8\[1, 4, 4, 3\]; expected 2 rows"):
        to_samples({**given, "task": "pick"}, ["front", "wrist"])


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_and_eight_bits_say_the_same(kind):
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    marks = torch.tensor([[0.25, 0.5, 1.0]], dtype=kind)
    given = {"observation.images.front": pixels, "observation.prompts.front.points": marks, "task": "pick"}
    (sample,) = to_samples(given, ["front"])
    assert np.array_equal(sample.images["front"], pixels[0].permute(1, 2, 0).numpy())
    assert sample.prompts == {"front": (Point(0.25, 0.5),)}
    plain = to_samples({**given, "observation.images.front": pixels.float() / 255}, ["front"])
    assert np.array_equal(plain[0].images["front"], sample.images["front"])


def test_a_camera_that_the_checkpoint_leaves_out_may_have_masks():
    images = {f"observation.images.{name}": torch.zeros(1, 3, 4, 4) for name in ("front", "top")}
    (sample,) = to_samples({**images, "observation.masks.top": torch.ones(1, 4, 4), "task": "pick"}, ["front"])
    assert sample.masks == {}


def test_groups_that_the_checkpoint_lacks_are_named_with_those_it_has(wrapped, tmp_path):
    wrap("pi0", str(wrapped["pi0_base"]), tmp_path / "bare", ["head/native"])
    with pytest.raises(UserError, match=r"which this checkpoint does not fit.*What it has is .*llm.*train_groups=\["):
        make(tmp_path / "bare")
    assert make(tmp_path / "bare", train_groups=["expert"]).get_optim_params()
    with pytest.raises(UserError, match="Did you mean 'pixel'"):
        make(wrapped["pi0"], train_groups=["pixl"])


def test_a_running_chunk_is_not_handed_to_other_rows(wrapped):
    policy = make(wrapped["third_party"])
    policy.select_action(seen(batch(2)))
    with pytest.raises(UserError, match=r"of 2 rows, the batch of 1. Call reset"):
        policy.select_action(seen(batch(1)))
    policy.reset()
    assert policy.select_action(seen(batch(1))).shape == (1, DIM)


def test_select_action_hands_out_a_chunk_step_by_step(wrapped):
    policy, given = make(wrapped["third_party"]), seen(batch(2))
    chunk = policy.predict_action_chunk(given)
    assert chunk.shape == (2, HORIZON, DIM)
    steps = [policy.select_action(given) for _ in range(3)]
    assert torch.equal(torch.stack(steps, 1), chunk[:, [0, 1, 0]])
    policy.reset()
    assert torch.equal(policy.select_action(given), chunk[:, 0])


def test_losses_of_single_samples(wrapped):
    policy, given = make(wrapped["third_party"]), batch()
    policy.eval()
    rows, _ = policy.forward(given, reduction="none")
    assert rows.shape == (3,)
    assert rows.mean().item() == pytest.approx(policy.forward(given)[0].item(), rel=1e-5)
    with pytest.raises(UserError, match="reduction is 'sum'"):
        policy.forward(given, reduction="sum")


def test_actions_are_scaled_by_the_contract_of_the_data(wrapped):
    policy = make(wrapped["third_party"])
    contract = policy.model.contract
    assert (contract.fps, contract.dataset, contract.dim) == (5.0, "me/cups", DIM)
    assert contract.names == tuple(f"a{i}" for i in range(DIM))
    assert contract.unknown == ("orientation", "frame")  # such names say that nothing grips or turns
    given = seen(batch(1))
    raw = policy.model.predict(policy.model.collate(to_samples(given, ["front"]), train=False))
    assert torch.allclose(policy.predict_action_chunk(given), contract.unnormalize(raw))


@pytest.mark.parametrize("rule", ["q99", "min_max", "mean_std"])
def test_actions_are_scaled_by_the_rule_of_the_checkpoints_recipe(rule, wrapped, tmp_path):
    wrap("pi0", str(wrapped["pi0_base"]), tmp_path / "run", ["head/native", f"action.normalization={rule}"])
    policy = make(tmp_path / "run", train_groups=["expert"])
    assert policy.model.contract.rule == rule
    policy.save_pretrained(tmp_path / "saved")
    assert type(policy).from_pretrained(tmp_path / "saved").model.contract.rule == rule


def test_states_are_read_by_the_datas_statistics_and_so_they_are_when_it_is_loaded(wrapped, tmp_path):
    policy = make(wrapped["pi0"])
    assert policy.model.contract.state.mean == (2.0,) * 8
    policy.save_pretrained(tmp_path / "saved")
    for found in (policy, type(policy).from_pretrained(tmp_path / "saved")):
        sample = to_samples({**seen(batch(1)), "observation.state": torch.full((1, 8), 10.0)}, ["front"])
        assert torch.allclose(found.model.collate(sample, train=False).inputs["state"][0, :8], torch.full((8,), 2.0))
    assert make(wrapped["third_party"]).model.contract.state is None


def test_a_run_is_exported_with_processors_that_lerobot_loads(wrapped, tmp_path):
    out = export(wrapped["pi0"], tmp_path / "policy")
    config = PreTrainedConfig.from_pretrained(out)
    before, behind = make_pre_post_processors(config, pretrained_path=str(out))
    policy = get_policy_class(config.type).from_pretrained(out, config=config)
    given = seen(batch(1))
    row = {name: value[0] for name, value in given.items()}
    prepared = before({**row, **to_observation({"front": [Point(0.3, 0.4)]})})
    torch.manual_seed(3)
    action = behind(policy.select_action(prepared))
    torch.manual_seed(3)
    other = behind(policy.predict_action_chunk(before(row))[:, 0])
    assert action.shape == other.shape == (1, DIM)
    assert not torch.equal(action, other)
    with pytest.raises(UserError, match="exists"):
        export(wrapped["pi0"], out)


@pytest.mark.parametrize("page", ["lerobot_policy", "pi0"])
def test_the_lists_that_the_documentation_gives_are_read_beside_a_path(page, tmp_path):
    """LeRobot reads a policy's options as JSON there, and as YAML elsewhere."""
    make_policy_config("pixelvla", device="cpu")._save_pretrained(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"--policy\.(\w+)='(\[.+?\])'", text)
    assert found
    for name, value in found:
        config = PreTrainedConfig.from_pretrained(tmp_path, cli_overrides=[f"--{name}={value}"])
        assert getattr(config, name) == json.loads(value)


def test_mistakes_are_one_paragraph(wrapped):
    with pytest.raises(UserError, match=r"--policy\.checkpoint=FOLDER"):
        make_policy(make_policy_config("pixelvla", device="cpu"), ds_meta=metadata())
    with pytest.raises(UserError, match=r"Set --policy\.chunk_size=4"):
        get_policy_class("pixelvla")(make_policy_config("pixelvla", checkpoint=str(wrapped["pi0"]), device="cpu"))
    with pytest.raises(DataError, match="has the cameras top, but the checkpoint reads 'front'"):
        to_samples({"observation.images.top": torch.zeros(1, 3, 4, 4)}, ["front"])
    with pytest.raises(DataError, match="no task"):
        to_samples({"observation.images.front": torch.zeros(1, 3, 4, 4)}, ["front"])
    with pytest.raises(ValueError, match="n_action_steps"):
        make_policy_config("pixelvla", n_action_steps=9)
