"""Whole annotations of real recordings, from folders and by id, and with language models that reason."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelvla_core.annotate.run import annotate
from pixelvla_core.annotations.episodes import read_episodes
from pixelvla_core.annotations.reader import Sidecar, read_manifest
from pixelvla_core.annotations.validate import validate
from pixelvla_core.errors import UserError
from pixelvla_core.files import sha256
from pixelvla_core.plugins import PluginManager, Registry

STANDINS = Path(__file__).parent / "standins"
TARGETS = ("red bowl", "red bowl", "red mug")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginManager.load().registry


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real LeRobotDataset as LIBERO's are: two cameras, 256 x 256, actions that close at 1, nothing named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STANDINS))
        patch.setenv("PIXELVLA_CACHE", str(tmp_path_factory.mktemp("cache")))
        import filming

        yield filming.record(tmp_path_factory.mktemp("filmed") / "bowls")


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


# A recording like LIBERO's


def check(out: Path) -> None:
    """Every episode is kept, and the masks are those of the bowls."""
    import filming

    assert validate(out) == []
    notes = read_episodes(out)
    assert [note.target for note in notes] == [TARGETS[episode % 3] for episode in range(filming.EPISODES)]
    assert all(note.kept and note.close_frame == filming.CLOSING for note in notes)
    sidecar, shares = Sidecar(out), []
    for episode in range(filming.EPISODES):
        (row,) = sidecar.find(episode, 0)
        assert row.mask is not None
        seen, true = row.mask.decode(), filming.thing(episode, 0)
        shares.append(np.count_nonzero(seen & true) / np.count_nonzero(seen | true))
    assert min(shares) > 0.7


@pytest.mark.parametrize("camera", ["image", "observation.images.image"])
def test_a_recording_like_liberos_with_its_profile(
    camera: str, filmed: Path, tmp_path: Path, registry: Registry
) -> None:
    out = annotate(str(filmed), tmp_path / "out", [f"camera={camera}", "profile=libero"], registry)
    check(out)
    assert read_manifest(out)["camera"] == "image"


def test_its_gripper_is_read_from_fingers_that_mirror_each_other(
    filmed: Path, tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture
) -> None:
    check(annotate(str(filmed), tmp_path / "out", ["camera=image"], registry))
    said = capsys.readouterr().out
    assert "'action_6' 1 closes and -1 opens" in said
    assert "'state_6' and 'state_7'" in said


def test_the_wrong_sign_is_refused(filmed: Path, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(UserError, match="libero_rlds"):
        annotate(str(filmed), tmp_path / "out", ["camera=image", "profile=libero_rlds"], registry)


def test_the_other_camera_is_named_where_one_is_misspelt(filmed: Path, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(UserError, match="It has image, image2"):
        annotate(str(filmed), tmp_path / "out", ["camera=agentview"], registry)
    with pytest.raises(UserError, match=r"has 2 cameras \(image, image2\)\. Say which one"):
        annotate(str(filmed), tmp_path / "out", [], registry)


def test_a_folder_within_the_dataset_is_refused(filmed: Path, registry: Registry) -> None:
    """LeRobot would take our rows for its own, and not open the dataset any more."""
    before = sorted(filmed.rglob("*"))
    for out in (filmed / "data" / "annotations", filmed / "annotations"):
        with pytest.raises(UserError, match="lies within the dataset"):
            annotate(str(filmed), out, ["camera=image"], registry)
    assert sorted(filmed.rglob("*")) == before


# Ids on the hub


def test_a_dataset_by_its_id(filmed: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot's own code runs up to the call that would download, which finds the files here."""
    import lerobot.datasets.dataset_metadata as metadata
    import lerobot.datasets.lerobot_dataset as dataset

    asked = []

    def snapshot(repo_id: str, *, revision: str | None = None, **_: object) -> str:
        asked.append((repo_id, revision))
        return str(filmed)

    for module in (metadata, dataset):
        monkeypatch.setattr(module, "snapshot_download", snapshot)
        monkeypatch.setattr(module, "get_safe_version", lambda repo_id, revision, **_: revision)
    revision = "recording.options.revision=v3.0"
    out = annotate("nobody/bowls", tmp_path / "out", ["camera=image", "profile=libero", revision], registry)
    check(out)
    manifest = read_manifest(out)
    assert (manifest["dataset"], manifest["revision"]) == ("nobody/bowls", "v3.0")
    assert ("nobody/bowls", "v3.0") in asked
    local = annotate(str(filmed), tmp_path / "local", ["camera=image", "profile=libero"], registry)
    assert contents(local / "rows").keys() == contents(out / "rows").keys()
    assert read_manifest(local)["fingerprint"] == manifest["fingerprint"]


def test_an_id_that_cannot_be_had_is_told_before_any_work(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/nothing"):
        annotate("nobody/nothing", tmp_path / "out", [], registry)
    with pytest.raises(UserError, match="neither a folder nor an id"):
        annotate(str(tmp_path / "gone"), tmp_path / "out", [], registry)
    assert not (tmp_path / "out").exists()


# A language model on this machine


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of a few thousand random weights with a tokenizer of single bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(1)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, bos_token_id=0, eos_token_id=1, **size)).save_pretrained(folder)
    return folder


def test_a_language_model_reasons_within_an_annotation(
    language_model: Path, filmed: Path, tmp_path: Path, registry: Registry
) -> None:
    arguments = ["camera=image", "profile=libero", "reasoner=hf", f"reasoner.options.model={language_model}"]
    more = ["reasoner.options.device=cpu", "reasoner.options.max_new_tokens=40"]
    out = annotate(str(filmed), tmp_path / "out", [*arguments, *more], registry)
    assert validate(out) == []
    notes = read_episodes(out)
    assert all(note.target in note.instruction for note in notes)
    assert any(note.target for note in notes)
    tool = read_manifest(out)["tools"]["annotate"]["reasoner"]
    assert tool["name"] == "hf"
    assert set(tool["weights"]["sha256"]) >= {"model.safetensors", "tokenizer.json", "config.json"}
    again = annotate(str(filmed), tmp_path / "again", [*arguments, *more], registry)
    assert contents(again) == contents(out)


# A language model behind a server


class Served(ThreadingHTTPServer):
    """Speaks OpenAI's chat API; ``broken`` says whether to answer a request, by its number, with an error."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.asked: list[str] = []
        self.broken: Callable[[int], bool] = lambda number: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Chat(BaseHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        instruction = body["messages"][0]["content"].rpartition("Instruction: ")[2].partition("\n")[0]
        self.server.asked.append(instruction)
        if self.server.broken(len(self.server.asked)):
            self._send(503, {"error": {"message": "the model is being loaded"}})
            return
        message = {"role": "assistant", "content": "red mug" if "mug" in instruction else "red bowl"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]})

    def _send(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("retry-after-ms", "5")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "cache"))
    server = Served()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asking(url: str) -> list[str]:
    options = {"base_url": url, "model": "tiny", "retries": 2, "timeout": 5, "concurrency": 1}
    named = [f"reasoner.options.{key}={value}" for key, value in options.items()]
    return ["camera=image", "profile=libero", "reasoner=openai", *named]


def test_a_server_reasons_within_an_annotation(
    served: Served, filmed: Path, tmp_path: Path, registry: Registry
) -> None:
    served.broken = lambda number: number == 2  # passes by: asked again
    check(annotate(str(filmed), tmp_path / "out", asking(served.url), registry))
    assert len(served.asked) == 3 + 1


def test_a_server_that_fails_half_way_is_asked_only_for_the_rest(
    served: Served, filmed: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "out", asking(served.url)
    served.broken = lambda number: number > 1
    with pytest.raises(UserError, match="answered with an error") as caught:
        annotate(str(filmed), out, settings, registry)
    assert "run the same command again" in str(caught.value)
    assert 1 + 3 <= (failed := len(served.asked)) <= 1 + 2 * 3  # one answer, then requests with two retries each
    served.broken = lambda number: False
    check(annotate(str(filmed), out, settings, registry))
    assert len(served.asked) == failed + 2
    monkeypatch.setenv("PIXELVLA_CACHE", str(tmp_path / "fresh"))
    assert contents(annotate(str(filmed), tmp_path / "whole", settings, registry)) == contents(out)


def test_a_server_that_is_not_there_is_told_before_any_work(filmed: Path, tmp_path: Path, registry: Registry) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=r"cannot be reached.*ollama serve"):
            annotate(str(filmed), tmp_path / "out", asking(url), registry)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_an_older_format_is_refused(filmed: Path, tmp_path: Path, registry: Registry) -> None:
    old = Path(shutil.copytree(filmed, tmp_path / "old"))
    info = json.loads((old / "meta" / "info.json").read_text())
    (old / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(UserError, match="convert_dataset_v21_to_v30"):
        annotate(str(old), tmp_path / "out", ["camera=image"], registry)
