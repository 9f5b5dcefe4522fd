"""The trainer on the example backbone: what learns, what does not, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import train_toy
from pixelvla_toy import Squares, SquaresConfig

from pixelvla_core import checkpoint
from pixelvla_core.checkpoint.find import OPTIMIZER, newest
from pixelvla_core.checkpoint.tensors import write_tensors
from pixelvla_core.errors import CheckpointError, RecipeError, UserError
from pixelvla_core.model import freeze
from pixelvla_core.model.assemble import assemble
from pixelvla_core.recipe import Stage
from pixelvla_core.train import job
from pixelvla_core.train.optim import learning_rate, make_optimizer
from pixelvla_core.train.order import Order, Slot
from pixelvla_core.train.progress import duration, forget_after
from pixelvla_core.train.run import train
from pixelvla_core.train.stage import Objective, checkpoint_gradients
from pixelvla_core.train.state import optimizer_tensors, restore_optimizer

REGISTRY = train_toy.registry()
TOY = Path(__file__).with_name("toy") / "train_toy.py"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(out: Path, *overrides: str, name: str = "toy", resume: bool = False) -> Path:
    return train(train_toy.recipe(*overrides, name=name), out, resume, REGISTRY)


def delta(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "delta.safetensors")


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    run(out, "stages.cat.steps=30", "stages.cat.lr=3e-3", "stages.pue.steps=10")
    return out


def test_loss_falls(trained: Path) -> None:
    losses = [row["loss"] for row in metrics(trained) if row["stage"] == "cat"]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:2])


def test_metrics_say_rate_eta_and_memory(trained: Path) -> None:
    row = metrics(trained)[-1]
    assert row["step"] == 40
    assert row["stage_step"] == 10
    assert row["samples_per_s"] > 0
    assert row["eta_s"] == 0
    assert row["rss_mib"] > 50


def test_each_stage_trains_its_groups_alone(trained: Path) -> None:
    recipe = train_toy.recipe()
    fresh = assemble(recipe, registry=REGISTRY).state_dict()
    after_cat = delta(trained / "checkpoints" / "step-000030")
    last = delta(trained / "checkpoints" / "last")

    def changed(before: dict, after: dict) -> set[str]:
        parts = {name for name in after if not torch.equal(before[name], after[name])}
        return {"lora" if ".lora_" in name else name.partition(".")[0] for name in parts}

    assert changed(fresh, after_cat) == {"head"}
    assert changed(after_cat, last) == {"head", "lora", "pixel_encoder", "prompt_encoder"}


def test_checkpoints_kept(trained: Path) -> None:
    kept = sorted(folder.name for folder in (trained / "checkpoints").glob("step-*"))
    assert kept == ["step-000030", "step-000036", "step-000039", "step-000040"]
    assert checkpoint.read_manifest(trained / "checkpoints" / "last").stages == ("cat", "pue")


def test_trained_run_acts(trained: Path) -> None:
    model = checkpoint.load(trained, registry=REGISTRY).model
    sample = Squares(SquaresConfig()).sample(0, horizon=4, rng=np.random.default_rng(0))
    assert model.act([sample]).shape == (1, 4, 7)


def test_frozen_trunk_without_autograd_gives_the_same_gradients() -> None:
    recipe = train_toy.recipe()
    data = Squares(SquaresConfig())
    model = assemble(recipe, contract=data.contract(), registry=REGISTRY)
    stage = recipe.stages["cat"]
    freeze.apply(model, stage.train)
    samples = [data.sample(i, horizon=4, rng=np.random.default_rng(i)) for i in range(5)]
    batch = model.collate(samples, train=True)
    found = []
    for autograd in (True, False):
        model.zero_grad()
        objective = Objective(model, stage, autograd=autograd)
        assert objective.only_head != autograd
        objective(batch).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    run(tmp_path / "a", name="native")
    run(tmp_path / "b", "stages.pre.batch_size=2", "stages.pre.grad_accum=4", name="native")
    a, b = delta(tmp_path / "a" / "checkpoints" / "last"), delta(tmp_path / "b" / "checkpoints" / "last")
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, atol=2e-5, rtol=1e-3)


def test_bfloat16(tmp_path: Path) -> None:
    run(tmp_path / "r", "run=[cat]", "stages.cat.precision=bfloat16")
    assert np.isfinite([row["loss"] for row in metrics(tmp_path / "r")]).all()


def test_nan_stops_with_stage_and_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    order = Order(48, 0, "cat")
    bad = order.index(order.positions(Slot(4), 4)[0])
    with pytest.raises(UserError, match=r"Stage 'cat' broke down in step 5: the loss is nan"):
        run(tmp_path / "r", f"data.options.nan_at={bad}")
    assert (tmp_path / "r" / "checkpoints" / "last").resolve().name == "step-000004"
    checkpoint.load(tmp_path / "r", registry=REGISTRY)


def test_a_run_is_not_overwritten(trained: Path) -> None:
    with pytest.raises(UserError, match="--resume"):
        run(trained)


def test_what_is_no_run_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UserError, match="not overwritten"):
            run(tmp_path, resume=resume)
    assert [item.name for item in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_checkpoint_is_not_trained_into(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree((trained / "checkpoints" / "last").resolve(), tmp_path / "best")
    with pytest.raises(UserError, match="not overwritten"):
        run(folder)
    checkpoint.load(folder, registry=REGISTRY)


def test_a_run_that_was_refused_or_killed_early_may_be_begun_again(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run(tmp_path, "backbone.weights=nowhere", name="native")
    run(tmp_path, name="native", resume=True)


def test_resume_with_another_recipe_is_refused(trained: Path) -> None:
    steps = ["stages.cat.steps=30", "stages.cat.lr=3e-3", "stages.pue.steps=10"]
    with pytest.raises(RecipeError, match=r"another recipe: stages\.pue\.lr differ"):
        run(trained, *steps, "stages.pue.lr=5e-3", resume=True)


def test_resume_with_other_steps_of_a_stage_that_is_done_is_refused(trained: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\.cat\.steps"):
        run(trained, "stages.cat.steps=40", "stages.cat.lr=3e-3", resume=True)


def test_resume_with_more_steps_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "r", name="native")
    run(tmp_path / "r", "stages.pre.steps=6", name="native", resume=True)
    run(tmp_path / "whole", "stages.pre.steps=6", name="native")
    folders = [tmp_path / name / "checkpoints" / "step-000006" / "delta.safetensors" for name in ("r", "whole")]
    assert folders[0].read_bytes() == folders[1].read_bytes()


def test_resume_with_fewer_steps_than_are_done_is_refused(trained: Path) -> None:
    steps = ["stages.cat.steps=30", "stages.cat.lr=3e-3"]
    with pytest.raises(RecipeError, match=r"after step 10 of stage pue, but stages\.pue\.steps is 9"):
        run(trained, *steps, "stages.pue.steps=9", resume=True)


def test_unknown_tracker(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'tensorboard'"):
        run(tmp_path / "r", "log.trackers=[tensorbord]")


def test_tensorboard_by_name(tmp_path: Path) -> None:
    run(tmp_path / "r", "log.trackers=[tensorboard]", name="native")
    assert list((tmp_path / "r" / "logs").glob("events.*"))


def test_a_recipe_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no run"):
        run(tmp_path / "r", "run=[]")


def test_gradient_checkpointing_needs_a_base_that_offers_it() -> None:
    model = assemble(train_toy.recipe(), registry=REGISTRY)
    with pytest.raises(UserError, match="gradient_checkpointing_enable"):
        checkpoint_gradients(model.base, True)
    checkpoint_gradients(model.base, False)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_learning_rate(schedule: str, rates: list[float]) -> None:
    stage = Stage(train=["head"], steps=6, lr=1.0, warmup_steps=2, schedule=schedule)
    assert [learning_rate(stage, step) for step in range(6)] == pytest.approx(rates, abs=1e-6)


def test_vectors_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    groups = make_optimizer(model, Stage(train=["head"], steps=1, weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]


@pytest.mark.parametrize("length", [1, 7, 48])
def test_every_epoch_shows_every_sample_once_in_another_order(length: int) -> None:
    order = Order(length, 3, "cat")
    epochs = [[order.index(epoch * length + i) for i in range(length)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    assert length < 7 or len(set(map(tuple, epochs))) == 3


def test_processes_share_the_stream_of_one() -> None:
    order = Order(100, 0, "cat")
    one = [p for number in range(3) for p in order.positions(Slot(number), 8)]
    two = [p for number in range(3) for rank in range(2) for p in order.positions(Slot(number, rank, 2), 4)]
    assert one == two


def test_metrics_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    forget_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_durations() -> None:
    assert [duration(s) for s in (12.4, 185, 3720)] == ["12s", "3m05s", "1h02m"]


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Block",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def launch(out: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment}
    return subprocess.run([*command, str(TOY), str(out), *arguments], env=settings, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_does(environment: dict[str, str], tmp_path: Path) -> None:
    run(tmp_path / "one", name="native")
    done = launch(tmp_path / "two", environment, "--native", "stages.pre.batch_size=4")
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (delta(tmp_path / name / "checkpoints" / "last") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-3)


@pytest.mark.slow
def test_ddp_and_fsdp_train_both_stages_alike_and_resume(tmp_path: Path) -> None:
    """Batches without prompts leave the encoders out on one process and not on the other."""
    found = []
    for name, environment in {"ddp": {}, "fsdp": FSDP}.items():
        out = tmp_path / name
        first = launch(out, environment, "run=[cat,pue]", "stages.pue.steps=3")
        assert first.returncode == 0, first.stdout + first.stderr
        second = launch(out, environment, "run=[cat,pue]", "stages.pue.steps=5", "--resume")
        assert second.returncode == 0, second.stdout + second.stderr
        assert checkpoint.load(out, registry=REGISTRY).manifest.step == 11
        found.append(delta(out / "checkpoints" / "last"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-4, rtol=1e-2)


@pytest.mark.slow
def test_the_papers_setting_is_sharded_over_two_processes_as_the_docs_say(tmp_path: Path) -> None:
    """A base in bfloat16 under LoRA in float32, wrapped by decoder layer."""
    wrapped = {**FSDP, "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer"}
    run(tmp_path / "one", "stages.pue.batch_size=8", name="paper")
    done = launch(tmp_path / "two", wrapped, "--paper")
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (delta(tmp_path / name / "checkpoints" / "last") for name in ("one", "two"))
    assert {name: (t.shape, t.dtype) for name, t in one.items()} == {
        name: (t.shape, t.dtype) for name, t in two.items()
    }
    assert {tensor.dtype for name, tensor in two.items() if ".lora_" in name} == {torch.float32}
    assert any(tensor.any() for name, tensor in two.items() if ".lora_B" in name)
    for key in ("loss", "grad_norm"):
        found = [[row[key] for row in metrics(tmp_path / name)] for name in ("one", "two")]
        np.testing.assert_allclose(found[1], found[0], rtol=0.05)  # each process takes the mean of its valid actions


def test_gradient_checkpointing_is_switched_in_both_ways_that_bases_offer() -> None:
    asked: list = []

    class Choosing(torch.nn.Module):
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None) -> None:
            asked.append(gradient_checkpointing_kwargs)

        def gradient_checkpointing_disable(self) -> None:
            asked.append("off")

    class Plain(torch.nn.Module):
        def gradient_checkpointing_enable(self) -> None:
            asked.append("plain")

    for base in (Choosing(), Plain()):
        for on in (True, False):
            checkpoint_gradients(torch.nn.Sequential(base), on)
    assert asked == [{"use_reentrant": False}, "off", "plain"]


def test_gradient_checkpointing_of_one_stage_is_not_the_next_ones(tmp_path: Path, monkeypatch) -> None:
    switched = []
    monkeypatch.setattr(job, "checkpoint_gradients", lambda base, on: switched.append(on))
    run(tmp_path, "stages.cat.grad_checkpointing=true")
    assert switched == [True, False]


def adamw(device: str = "cpu", fused: bool = True) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    """A model of which one layer is reached by gradients and one is not."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 2), "unused": torch.nn.Linear(3, 2)}).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)


def stepped(steps: int = 2) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    model, optimizer = adamw()
    for _ in range(steps):
        model["used"](torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_is_restored_to_where_torch_itself_would_put_it(fused: bool, tmp_path: Path) -> None:
    """A device without data stands for the accelerator: only fused AdamW counts its steps there."""
    model, optimizer = stepped()
    write_tensors(tmp_path / OPTIMIZER, optimizer_tensors(model, optimizer))
    found, wanted = adamw("meta", fused), adamw("meta", fused)
    wanted[1].load_state_dict({**wanted[1].state_dict(), "state": optimizer.state_dict()["state"]})
    restore_optimizer(*found, tmp_path)
    for name, parameter in wanted[0]["used"].named_parameters():
        state = found[1].state[dict(found[0]["used"].named_parameters())[name]]
        places = {moment: (tensor.device, tensor.dtype) for moment, tensor in state.items()}
        assert places == {m: (tensor.device, tensor.dtype) for m, tensor in wanted[1].state[parameter].items()}


def test_an_optimizer_goes_on_as_if_it_had_never_stopped_where_gradients_come_late(tmp_path: Path) -> None:
    found = []
    for restored in (False, True):
        model, optimizer = stepped()
        if restored:
            write_tensors(tmp_path / OPTIMIZER, optimizer_tensors(model, optimizer))
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
            restore_optimizer(model, optimizer, tmp_path)
        model["unused"](torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("lost", ["exp_avg_sq/used.weight", "step/used.bias", "exp_avg/unused.bias"])
def test_an_optimizer_state_that_is_not_whole_is_refused(lost: str, tmp_path: Path) -> None:
    model, optimizer = stepped()
    tensors = optimizer_tensors(model, optimizer)
    del tensors[lost]
    write_tensors(tmp_path / OPTIMIZER, tensors)
    with pytest.raises(CheckpointError, match=f"1 missing .{lost}"):
        restore_optimizer(*adamw(), tmp_path)


def test_damaged_checkpoints_that_were_passed_over_make_no_new_one_old(tmp_path: Path) -> None:
    run(tmp_path)
    for step in (9, 12, 14):
        (tmp_path / "checkpoints" / f"step-{step:06d}" / "delta.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="Passing over"):
        run(tmp_path, "stages.pue.steps=2", "stages.pue.save_every=1", resume=True)
    assert checkpoint.read_manifest(tmp_path / "checkpoints" / "step-000007").step == 7


def test_a_run_without_a_sound_checkpoint_says_so_in_whole_sentences(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"there is none\. Train again"):
        newest(tmp_path, for_training=True)
