"""The reasoner ``hf``: a causal language model on this machine whose every answer is a part of the instruction.

Decoding is greedy and kept on a trie of the instruction's own word spans: at each step only tokens that go on with one
of them may follow, and the end only where one is complete. So the answer always occurs in the instruction, whatever
the model would rather say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pixelvla_core.annotate.batches import in_batches
from pixelvla_core.annotate.models import Target
from pixelvla_core.api import UserError
from pixelvla_reason.config import HfConfig
from pixelvla_reason.local import LocalModel, local_model
from pixelvla_reason.spans import PROMPT, ask, word_spans


@dataclass
class Trie:
    """Spans by their tokens; ``span`` is what ends here."""

    next: dict[int, Trie] = field(default_factory=dict)
    span: str | None = None

    def add(self, tokens: Iterable[int], span: str) -> None:
        """Put in one span; the first one stays where two have the same tokens."""
        node = self
        for token in tokens:
            node = node.next.setdefault(token, Trie())
        node.span = node.span or span

    def walk(self, tokens: Iterable[int]) -> Trie | None:
        """Where some tokens lead; None if no span starts with them."""
        node: Trie | None = self
        for token in tokens:
            node = node.next.get(token) if node else None
        return node

    def allowed(self, tokens: Sequence[int], end: int) -> list[int]:
        """Which tokens may follow; only the end after an end."""
        node = self.walk(tokens)
        if node is None:
            return [end]
        return [*node.next, end] if node.span is not None or not tokens else list(node.next)


class Causal:
    """See the module; the model is loaded on first use."""

    def __init__(self, options: HfConfig) -> None:
        self.options = options

    def identity(self) -> dict[str, Any]:
        """Model, revision and hashes; raises ``UserError`` with the command that downloads what is missing."""
        return dict(self._identified)

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        """Return one target for each instruction."""
        return list(in_batches(self._answer, instructions, self.options.batch))

    @cached_property
    def _found(self) -> LocalModel:
        return local_model(self.options.model, self.options.revision)

    @cached_property
    def _identified(self) -> dict[str, Any]:
        return {"model": self._found.name, "revision": self._found.revision, "sha256": self._found.hashes()}

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._found.folder, local_files_only=True, padding_side="left")
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"The tokenizer of {self._found.name} has no end-of-sequence token, so no answer would end."
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            self._found.folder, local_files_only=True, use_safetensors=True, dtype=self.options.dtype
        )
        return model.to(_device(self.options.device)).eval()

    def _answer(self, instructions: Sequence[str]) -> list[Target]:
        """Answer one batch."""
        import torch

        texts, special = self._prompts(instructions)
        asked = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=special)
        asked = asked.to(self._model.device)
        length, tries = asked["input_ids"].shape[1], [self._trie(instruction) for instruction in instructions]
        end = self._tokenizer.eos_token_id

        def allowed(index: int, so_far: torch.Tensor) -> list[int]:
            return tries[index].allowed(so_far[length:].tolist(), end)

        with torch.inference_mode():
            made = self._model.generate(
                input_ids=asked["input_ids"],
                attention_mask=asked["attention_mask"],
                prefix_allowed_tokens_fn=allowed,
                max_new_tokens=self.options.max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=end,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        return [
            _read(trie, row[length:].tolist(), end, instruction)
            for trie, row, instruction in zip(tries, made, instructions, strict=True)
        ]

    def _prompts(self, instructions: Sequence[str]) -> tuple[list[str], bool]:
        """The texts to go on with, and whether the tokenizer has yet to put its special tokens around them."""
        texts = [ask(PROMPT, instruction) for instruction in instructions]
        if self._tokenizer.chat_template is None:
            return [text + "\n" for text in texts], True
        chats = [[{"role": "user", "content": text}] for text in texts]
        return [
            self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
        ], False

    def _trie(self, instruction: str) -> Trie:
        trie = Trie()
        for span in word_spans(instruction):
            tokens = self._tokenizer(span, add_special_tokens=False)["input_ids"]
            if len(tokens) < self.options.max_new_tokens:
                trie.add(tokens, span)
        return trie


def _read(trie: Trie, made: list[int], end: int, instruction: str) -> Target:
    """The span that was generated."""
    node = trie.walk(made[: made.index(end)] if end in made else made)
    if node is None or not node.span:
        return Target("", f"the model finds no object to grasp in {instruction!r}")
    return Target(node.span.lower())


def _device(name: str) -> Any:
    import torch

    if name != "auto":
        return torch.device(name)
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
