"""The reasoner ``openai``: a language model behind any server that speaks OpenAI's chat API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

from pixelvla_core.annotate.models import Target
from pixelvla_core.annotations.reader import cache_dir
from pixelvla_core.api import UserError
from pixelvla_reason.answers import Answers
from pixelvla_reason.config import OpenAIConfig
from pixelvla_reason.spans import PROMPT, STRICTER, as_target, ask

_LONGEST = 256
"""Tokens in an answer; models that think aloud need more than the object's name."""
_PATIENCE = 10.0
"""Seconds in which a server has to show that it is there, before work starts."""


class Server:
    """See the module. Answers are kept in the cache folder, by model, prompt and instruction."""

    def __init__(self, options: OpenAIConfig) -> None:
        self.options = options

    def identity(self) -> dict[str, Any]:
        """Name of the model and its server; raises ``UserError`` if the server cannot be reached or refuses the key."""
        once = replace(self.options, timeout=min(_PATIENCE, self.options.timeout), retries=0)
        with _Explained(once, also_unlisted=True):
            self._client.with_options(timeout=once.timeout, max_retries=0).models.list()
        return {"model": self.options.model, "server": self.options.base_url}

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        """Return one target for each instruction.

        Raises:
            UserError: the server cannot be reached or refuses; the answers that it gave before are kept.
        """
        _ = self._answers, self._client  # one of each, made before threads could each make their own
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            return list(pool.map(self._target, instructions))
        finally:
            pool.shutdown(cancel_futures=True)

    @cached_property
    def _answers(self) -> Answers:
        return Answers(cache_dir() / "reason" / "openai.jsonl")

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        options = self.options
        key = os.environ.get(options.api_key_env) or "none"
        return OpenAI(api_key=key, base_url=options.base_url, timeout=options.timeout, max_retries=options.retries)

    def _target(self, instruction: str) -> Target:
        for prompt in (PROMPT, STRICTER):
            if target := as_target(answer := self._answer(prompt, instruction), instruction):
                return target
        return Target("", f"the model answered {answer[:80]!r}, which is no part of {instruction!r}")

    def _answer(self, prompt: str, instruction: str) -> str:
        known = self._answers.get(self.options.model, prompt, instruction)
        if known is not None:
            return known
        with _Explained(self.options):
            made = self._client.chat.completions.create(
                model=self.options.model,
                messages=[{"role": "user", "content": ask(prompt, instruction)}],
                temperature=0,
                max_tokens=_LONGEST,
            )
        try:
            answer = str(made.choices[0].message.content or "")
        except (AttributeError, IndexError, TypeError) as error:
            raise UserError(
                f"What answers at {self.options.base_url} does not speak OpenAI's chat API. Check reasoner options "
                "base_url; most servers want it to end in /v1."
            ) from error
        self._answers.put(answer, self.options.model, prompt, instruction)
        return answer


class _Explained:
    """Turns what the ``openai`` package raises into an error that says what to do."""

    def __init__(self, options: OpenAIConfig, *, also_unlisted: bool = False) -> None:
        self.options, self.also_unlisted = options, also_unlisted

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> bool:
        import openai

        if not isinstance(error, openai.OpenAIError):
            return False
        if self.also_unlisted and isinstance(error, openai.NotFoundError):
            return True
        raise UserError(self._advice(error)) from error

    def _advice(self, error: Exception) -> str:
        import openai

        url, model = self.options.base_url, self.options.model
        kept = "Answers that it gave before are kept: run the same command again and it goes on from there."
        if isinstance(error, openai.APITimeoutError):
            return (
                f"The server at {url} did not answer: {self.options.retries + 1} times {self.options.timeout:g} s went "
                f"by. See whether it is overloaded, or raise reasoner options timeout. {kept}"
            )
        if isinstance(error, openai.APIConnectionError):
            return (
                f"The server at {url} cannot be reached ({error.__cause__ or error}). Start it (`ollama serve`, or "
                f"`vllm serve {model}`), or set reasoner options base_url. {kept}"
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"The server at {url} refuses the key in ${self.options.api_key_env} ({error}). Set it. {kept}"
        if isinstance(error, openai.NotFoundError):
            return f"The server at {url} has no model {model} ({error}). With Ollama: `ollama pull {model}`. {kept}"
        return f"The server at {url} answered with an error: {error}. {kept}"
