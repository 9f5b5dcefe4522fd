"""What is cached equals what is computed, survives damage, and is never used for anything else.

Shapes: B batch.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).with_name("toy")))
import train_toy
from pixelvla_toy import Squares, SquaresConfig

from pixelvla_core.annotations.derive import derive_prompt
from pixelvla_core.annotations.rle import Rle
from pixelvla_core.data.prompting import PromptMix
from pixelvla_core.errors import UserError
from pixelvla_core.files import one_at_a_time
from pixelvla_core.model import freeze
from pixelvla_core.model.assemble import assemble
from pixelvla_core.model.config import READOUTS
from pixelvla_core.model.pixelvla import PixelVLA
from pixelvla_core.prompts import Line
from pixelvla_core.seam.batch import Sample
from pixelvla_core.train import cache
from pixelvla_core.train import fingerprint as train_fingerprint
from pixelvla_core.train.cache import frame_rng, open_cache, seen
from pixelvla_core.train.fingerprint import CORE, fingerprint, libraries, source_files
from pixelvla_core.train.loader import Source
from pixelvla_core.train.order import Order, Slot
from pixelvla_core.train.stage import Objective
from pixelvla_core.train.store import ROWS, Layout, Store

REGISTRY = train_toy.registry()
DATA = Squares(SquaresConfig(frames=20))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path))
    return tmp_path


def make(stage: str, *overrides: str):
    recipe = train_toy.recipe("stages.cat.batch_size=6", *overrides)
    model = assemble(recipe, contract=DATA.contract(), registry=REGISTRY)
    freeze.apply(model, recipe.stages[stage].train)
    return model.eval(), recipe, recipe.stages[stage]


def opened(model, recipe, stage, data=DATA, go_on=lambda: None):
    said: list[str] = []
    return open_cache(model, recipe, stage, data, said.append, go_on), " ".join(said)


def batch_of(model, stage, indices: list[int]):
    samples = [DATA.sample(index, horizon=model.head.horizon, rng=frame_rng(index)) for index in indices]
    return model.collate([seen(sample, stage) for sample in samples], train=True)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    ("stage", "kind"), [("cat", "features"), ("pue", "features"), ("cat", "hidden")], ids=lambda value: value
)
def test_cached_loss_and_gradients_are_the_computed_ones(stage: str, kind: str, readout: str) -> None:
    model, recipe, settings = make(stage, f"stages.{stage}.cache={kind}", f"head.options.readout={readout}")
    found, _ = opened(model, recipe, settings)
    indices = [3, 17, 0, 9]
    batch = batch_of(model, settings, indices)
    gradients = []
    for cached in (None, found):
        model.zero_grad()
        given = (
            {}
            if cached is None
            else {"past": found.past(indices)}
            if kind == "hidden"
            else {"features": found.features(indices)}
        )
        loss = Objective(model, settings)(batch, **given)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 5
    for computed, read in zip(*gradients, strict=True):
        torch.testing.assert_close(read, computed, atol=1e-5, rtol=1e-4)


def test_hidden_with_frozen_encoders_keeps_prompts() -> None:
    model, recipe, settings = make("cat", "stages.cat.cache=hidden", "stages.cat.prompts=true")
    found, _ = opened(model, recipe, settings)
    indices = list(range(8))
    batch = batch_of(model, settings, indices)
    assert batch.prompts
    objective = Objective(model, settings)
    torch.testing.assert_close(objective(batch, past=found.past(indices)), objective(batch), atol=1e-5, rtol=1e-4)


def test_a_finished_cache_is_only_read() -> None:
    model, recipe, settings = make("cat", "stages.cat.cache=features")
    assert "Caching" in opened(model, recipe, settings)[1]
    said = opened(model, recipe, settings)[1]
    assert " 0 B are to be written" in said
    assert "Caching" not in said


@pytest.mark.parametrize("kind", ["features", "hidden"])
def test_a_damaged_row_is_made_again_to_the_bit(kind: str) -> None:
    model, recipe, settings = make("cat", f"stages.cat.cache={kind}")
    found, _ = opened(model, recipe, settings)
    path = found.store.folder / ROWS
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 4
    with path.open("r+b") as file:
        file.write(damaged)
    assert "1 of 4 batches" in opened(model, recipe, settings)[1]
    assert path.read_bytes() == before


def test_an_interrupted_build_goes_on() -> None:
    model, recipe, settings = make("cat", "stages.cat.cache=features")
    calls = iter([None, None, KeyboardInterrupt])

    def go_on() -> None:
        if (error := next(calls)) is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        opened(model, recipe, settings, go_on=go_on)
    assert "2 of 4 batches" in opened(model, recipe, settings)[1]


def key(*overrides: str, kind: str = "hidden", change: Callable = lambda model: None, data: Squares = DATA) -> str:
    model, recipe, settings = make("cat", "stages.cat.cache=hidden", "stages.cat.prompts=true", *overrides)
    change(model)
    return fingerprint(kind, model, recipe, settings, data)


@pytest.fixture
def model_and_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave code and versions, which cost half a second, out of the keys; they have tests of their own."""
    monkeypatch.setattr(train_fingerprint, "libraries", lambda packages: {})
    monkeypatch.setattr(train_fingerprint, "source_files", lambda modules: set())


def shifted(part: str) -> Callable:
    """Change the parameters of a model whose names contain a text."""

    def change(model) -> None:
        found = [parameter for name, parameter in model.named_parameters() if part in name]
        assert found
        with torch.no_grad():
            found[0].add_(1e-3)

    return change


class Renamed(Squares):
    def frame_key(self, index: int) -> str:
        return f"others/{index}"


KINDS = ("features", "hidden")
PACKAGES = {"pixelvla_core", "pixelvla_third_party", "pixelvla_toy"}
FACTS: dict[str, tuple[tuple[str, ...], dict]] = {
    "vision weights": (KINDS, {"change": shifted("base.tower.position")}),
    "weights behind the vision pass": (("hidden",), {"change": shifted("base.blocks")}),
    "lora": (("hidden",), {"change": shifted("lora_B")}),
    "weights of the pixel encoder": (("hidden",), {"change": shifted("pixel_encoder")}),
    "weights of the prompt encoder": (("hidden",), {"change": shifted("prompt_encoder")}),
    "weights of the head": ((), {"change": shifted("head")}),
    "what the head reads": (("hidden",), {"overrides": ["head.options.readout=last"]}),
    "other data": (KINDS, {"data": Squares(SquaresConfig(frames=21))}),
    "other frames": (KINDS, {"data": Renamed(DATA.config)}),
    "options of the data": (KINDS, {"overrides": ["data.options.fps=6"]}),
    "options of the backbone": (KINDS, {"overrides": ["backbone.options.causal=false"]}),
    "levels": (KINDS, {"overrides": ["pixel_encoder.options.levels=[1.0]"]}),
    "options of the pixel encoder": (("hidden",), {"overrides": ["pixel_encoder.options.position=false"]}),
    "options of the prompt encoder": (("hidden",), {"overrides": ["prompt_encoder.options.seed=7"]}),
    "options of lora": (("hidden",), {"overrides": ["lora.alpha=3"]}),
    "splice": (("hidden",), {"overrides": ["splice=in_text"]}),
    "precision": (KINDS, {"overrides": ["stages.cat.precision=bfloat16"]}),
    "prompts": (("hidden",), {"overrides": ["stages.cat.prompts=false"]}),
    "rate of learning": ((), {"overrides": ["stages.cat.lr=1e-2"]}),
    "steps": ((), {"overrides": ["stages.cat.steps=99"]}),
}


@pytest.mark.usefixtures("model_and_data_alone")
@pytest.mark.parametrize("fact", FACTS)
def test_the_key_holds_everything_of_model_and_data_that_could_change_the_values(fact: str) -> None:
    concerned, options = FACTS[fact]
    overrides = options.get("overrides", ())
    rest = {name: value for name, value in options.items() if name != "overrides"}
    assert [kind for kind in KINDS if key(*overrides, kind=kind, **rest) != key(kind=kind)] == list(concerned)


@pytest.mark.usefixtures("model_and_data_alone")
def test_models_that_differ_in_their_encoders_share_what_is_made_without_prompts() -> None:
    alone = key("stages.cat.prompts=false")
    for fact in ("weights of the pixel encoder", "options of the prompt encoder", "levels", "splice"):
        _, options = FACTS[fact]
        changed = key("stages.cat.prompts=false", *options.get("overrides", ()), change=options.get("change", _nothing))
        assert changed == alone, fact
    assert key("stages.cat.prompts=false", change=shifted("lora_B")) != alone


def _nothing(model) -> None:
    pass


@pytest.mark.usefixtures("model_and_data_alone")
def test_the_key_holds_build_versions_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = key()
    for target, name, value in (
        (torch, "__version__", f"{torch.__version__}+other"),
        (PixelVLA, "device", torch.device("cuda")),
        (train_fingerprint, "libraries", lambda packages: {"pillow": "99.0"} if packages >= PACKAGES else {}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert key() != plain


def test_what_plugins_require_is_found_in_turn_and_through_extras() -> None:
    own = libraries(["pixelvla_third_party"])
    assert own.items() >= {name: version(name) for name in ("torch", "transformers", "pillow", "numpy")}.items()
    assert own["pixelvla-third-party"] == version("pixelvla-third-party")
    assert "timm" not in own
    assert {"timm", "torchvision"} <= libraries(["pixelvla_openvla"]).keys()
    assert {"lerobot", "datasets", "av"} <= libraries(["pixelvla_lerobot"]).keys()
    assert libraries(["pixelvla_toy"]) == {}


@pytest.mark.parametrize("part", ["pixel_encoder", "prompt_encoder"])
def test_the_key_holds_the_code_of_a_plugins_encoder(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own package alone tells it from core's; a changed line of it makes another key."""
    module = tmp_path / f"plugin_with_a_{part}.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(train_fingerprint, "libraries", lambda packages: {})

    def brought(model) -> None:
        own = getattr(model, part)
        own.__class__ = type(type(own).__name__, (type(own),), {"__module__": module.stem})

    found = []
    for line in ("x = 1", "x = 2"):
        module.write_text(line)
        found.append(key(change=brought))
    assert found[0] != found[1]


class Glimpses(Squares):
    """Squares that the masks of the first half of the samples miss."""

    def sample(self, index: int, **options) -> Sample:
        sample = super().sample(index, **options)
        seen = index >= len(self) // 2
        masks = {camera: found & seen for camera, found in sample.masks.items()}
        return replace(sample, masks=masks)


def test_a_sample_with_a_mask_is_cached_whole_though_the_first_of_its_kind_has_an_empty_one() -> None:
    data = Glimpses(SquaresConfig(frames=12, words=["touch the square"], prompts=1.0))
    model, recipe, settings = make("cat", "stages.cat.cache=hidden", "stages.cat.prompts=true")
    found, _ = opened(model, recipe, settings, data)
    indices = [1, 11]
    samples = [data.sample(index, horizon=model.head.horizon, rng=frame_rng(index)) for index in indices]
    batch = model.collate(samples, train=False)
    objective = Objective(model, settings)
    torch.testing.assert_close(objective(batch, past=found.past(indices)), objective(batch), atol=1e-5, rtol=1e-4)
    lengths = found.past(indices).length_B
    assert lengths[1] == lengths[0] + 1


def test_a_prefix_that_is_longer_than_was_to_be_foreseen_is_refused_rather_than_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backbone may write what it likes into its prefix, such as the robot's state in words."""
    model, recipe, settings = make("cat", "stages.cat.cache=hidden")
    plain = model.backbone.collate

    def talkative(samples, *, train: bool):
        said = [replace(s, instruction=s.instruction + " now" * (s.key == "squares/13")) for s in samples]
        return plain(said, train=train)

    monkeypatch.setattr(model.backbone, "collate", talkative)
    with pytest.raises(UserError, match=r"room for \d+ tokens.*one sample takes \d+.*Set cache: features"):
        opened(model, recipe, settings)


@pytest.mark.parametrize(
    ("stage", "overrides", "words"),
    [
        ("pue", ["stages.pue.cache=features", "lora.groups=[vision]"], "which changes it"),
        ("pue", ["stages.pue.cache=features", "prompt_encoder=overlay", "stages.pue.train=[head,lora]"], "paints"),
        ("cat", ["stages.cat.cache=hidden", "stages.cat.train=[head]", "stages.cat.objective=native"], "head alone"),
    ],
    ids=["trained vision", "overlay", "native"],
)
def test_what_changes_is_not_cached(stage: str, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        opened(*make(stage, *overrides))


def test_too_small_a_disk_is_refused_before_a_row_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recipe, settings = make("cat", "stages.cat.cache=features")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="PIXELVLA_CACHE"):
        opened(model, recipe, settings)
    assert all(path.stat().st_blocks == 0 for path in folder.rglob(ROWS))


def test_cached_features_go_with_the_geometry_of_the_image_they_were_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter may augment in training; then its geometry is that of another image than the cached one."""
    model, recipe, stage = make("cat", "stages.cat.cache=features")
    plain = model.backbone.collate

    def augmenting(samples, *, train: bool):
        batch = plain(samples, train=train)
        moved = {camera: tuple(replace(a, shift_x=0.5) for a in maps) for camera, maps in batch.geometry.items()}
        return replace(batch, geometry=moved) if train else batch

    monkeypatch.setattr(model.backbone, "collate", augmenting)
    found, _ = opened(model, recipe, stage)
    order = Order(len(DATA), 0, "cat")
    for read, shift in ((found, 0.0), (None, 0.5)):
        batch = Source(data=DATA, model=model, stage=stage, order=order, cache=read).item(Slot(0)).batch
        assert {affine.shift_x for maps in batch.geometry.values() for affine in maps} == {shift}


def test_a_store_in_the_making_is_waited_for(folder: Path) -> None:
    layout = Layout.of({"t": torch.zeros(2)}, rows=3)
    other = threading.Thread(target=Store, args=(folder / "store", layout))
    with one_at_a_time(folder / "store.lock"):
        other.start()
        other.join(0.3)
        assert not (folder / "store").exists()
    other.join()
    assert (folder / "store" / ROWS).exists()


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int64]),
    seed=st.integers(0, 99),
)
def test_store_gives_back_what_it_was_given(shapes: list, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"t{i}": torch.randint(0, 2, (4, *shape), generator=generator).to(dtype) for i, shape in enumerate(shapes)
    }
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout.of({name: tensor[0] for name, tensor in tensors.items()}, rows=6)
        store = Store(Path(folder), layout)
        rows = np.array([5, 0, 3, 2])
        store.write(rows, tensors)
        store.flush()
        again = Store(Path(folder), layout)
        assert again.missing(range(6)) == [1, 4]
        for name, tensor in again.read(rows).items():
            assert torch.equal(tensor, tensors[name])


def test_a_row_is_written_whole_where_the_system_takes_a_few_bytes_at_a_time(folder: Path, monkeypatch) -> None:
    take = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: take(descriptor, content[:7], offset))
    values = torch.arange(30.0).view(2, 15)
    store = Store(folder / "store", Layout.of({"t": values[0]}, rows=2))
    store.write(np.arange(2), {"t": values})
    assert store.missing(range(2)) == []
    assert torch.equal(store.read(np.arange(2))["t"], values)


def test_the_code_that_makes_prompts_and_masks_is_part_of_the_key() -> None:
    counted = source_files(CORE)
    for part in (Line, derive_prompt, PromptMix, Rle, assemble):
        assert Path(inspect.getfile(part)) in counted
