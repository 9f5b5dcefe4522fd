"""The reasoner ``hf`` with tiny, randomly initialised models that are made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pixelvla_reason.config import HfConfig
from pixelvla_reason.hf import Causal, Trie
from pixelvla_reason.local import local_model
from pixelvla_reason.spans import LONGEST, PROMPT, word_spans
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pixelvla_core.annotate.models import Reasoner
from pixelvla_core.api import UserError
from pixelvla_core.plugins import PluginManager

INSTRUCTIONS = [
    "Put the Eggplant in Yellow Basket",
    "pick up the black bowl between the plate and the ramekin and place it on the plate",
    "open top drawer",
    "the cup, which is red, should be moved",
    "lift",
]
CHAT = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"


def make_model(folder: Path, *, chat: str | None = None, seed: int = 0) -> Path:
    """A Llama of a few thousand weights, and a byte-level tokenizer trained on a few sentences."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "</s>", "<user>", "<bot>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        INSTRUCTIONS * 5, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, **size
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def reasoner(folder: Path, **options: object) -> Causal:
    return Causal(HfConfig(model=str(folder), device="cpu", dtype="float32", **options))  # type: ignore[arg-type]


def test_it_is_a_reasoner_that_the_plugin_offers(folder: Path) -> None:
    component = PluginManager.load().registry.get("reasoner", "hf")
    assert isinstance(component.build(HfConfig(model=str(folder))), Reasoner)


@pytest.mark.parametrize("chat", [None, CHAT])
def test_every_answer_occurs_in_its_instruction(tmp_path: Path, chat: str | None) -> None:
    answers = []
    for seed in range(4):
        made = reasoner(make_model(tmp_path / str(seed), chat=chat, seed=seed), batch=3)
        targets = made.targets(INSTRUCTIONS)
        assert len(targets) == len(INSTRUCTIONS)
        for target, instruction in zip(targets, INSTRUCTIONS, strict=True):
            assert target.text in instruction.lower()
            assert target.text or target.reason
        answers += [target.text for target in targets]
    assert len(set(filter(None, answers))) > 3  # it is the models that choose, not one fixed answer


def test_the_most_likely_span_is_answered(folder: Path) -> None:
    """Greedy search over the trie, done by hand with the model's own probabilities."""
    made = reasoner(folder)
    instruction = INSTRUCTIONS[0]
    texts, special = made._prompts([instruction])
    ids = made._tokenizer(texts[0], add_special_tokens=special)["input_ids"]
    trie, answer, end = made._trie(instruction), [], made._tokenizer.eos_token_id
    while True:
        with torch.inference_mode():
            scores = made._model(torch.tensor([ids + answer])).logits[0, -1]
        best = max(trie.allowed(answer, end), key=lambda token: scores[token].item())
        if best == end:
            break
        answer.append(best)
    node = trie.walk(answer)
    assert node is not None
    assert made.targets([instruction])[0].text == (node.span or "").lower()


def test_a_batch_answers_like_one_at_a_time(folder: Path) -> None:
    together = reasoner(folder, batch=5).targets(INSTRUCTIONS)
    assert together == reasoner(folder, batch=1).targets(INSTRUCTIONS)


def test_the_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    texts, special = reasoner(make_model(tmp_path, chat=CHAT))._prompts(["open top drawer"])
    assert texts[0].startswith("<user>" + PROMPT.split("{")[0])
    assert texts[0].endswith("Instruction: open top drawer\nObject:<bot>")
    assert not special


def test_identity_is_the_files_hashes_and_changes_with_them(tmp_path: Path) -> None:
    first = reasoner(make_model(tmp_path, seed=0)).identity()
    assert first["model"] == str(tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(first["sha256"])
    again, other = reasoner(tmp_path).identity(), reasoner(make_model(tmp_path, seed=1)).identity()
    assert again == first
    assert other["sha256"]["model.safetensors"] != first["sha256"]["model.safetensors"]


def test_a_model_that_is_not_here_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    made = Causal(HfConfig(model="meta-llama/Llama-2-7b-chat-hf", revision="abc"))
    with pytest.raises(UserError, match=r"hf download meta-llama/Llama-2-7b-chat-hf --revision abc$"):
        made.identity()


def test_a_model_in_the_hubs_cache_tells_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--some--model"
    make_model(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    identity = Causal(HfConfig(model="some/model")).identity()
    assert (identity["model"], identity["revision"]) == ("some/model", commit)
    (repo / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors. Download it: hf download some/model$"):
        local_model("some/model")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str) -> None:
    (make_model(tmp_path) / missing).unlink()
    with pytest.raises(UserError, match=missing):
        reasoner(tmp_path).identity()


def test_neither_folder_nor_id() -> None:
    with pytest.raises(UserError, match="no folder and no id"):
        local_model("/nowhere/at/all")


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab ,.'éß漢_-7", max_size=30))
def test_spans_stand_in_any_instruction(text: str) -> None:
    for span in word_spans(text):
        assert span in " ".join(text.replace("_", " ").split())
        assert 0 < len(span.split()) <= LONGEST


def test_a_trie_allows_only_what_leads_to_a_span() -> None:
    trie, end = Trie(), 9
    trie.add([1, 2], "a b")
    trie.add([1], "a")
    trie.add([3, 4], "c d")
    assert sorted(trie.allowed([], end)) == [1, 3, end]
    assert sorted(trie.allowed([1], end)) == [2, end]
    assert trie.allowed([3], end) == [4]
    assert trie.allowed([1, 2], end) == [end]
    assert trie.allowed([1, 2, end], end) == [end]
