"""Options of the reasoners. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GrammarConfig:
    """The reasoner ``grammar`` has no options: its words are in ``words.toml``."""


@dataclass(frozen=True)
class HfConfig:
    """Options of the reasoner ``hf``.

    Attributes:
        model: A folder, or an id on the Hugging Face hub whose files were downloaded before.
        revision: Branch, tag or commit on the hub; "" is its main branch.
        batch: Instructions that are answered at once.
        dtype: Of the weights: "float32", "float16", "bfloat16", or "auto" as they are stored.
        device: "cpu", "cuda", ...; "auto" takes an accelerator if there is one.
        max_new_tokens: Longest answer; where an object's name is longer, the answer is cut at a word.
    """

    model: str = "meta-llama/Llama-2-7b-chat-hf"
    revision: str = ""
    batch: int = 16
    dtype: str = "auto"
    device: str = "auto"
    max_new_tokens: int = 24

    def __post_init__(self) -> None:
        _positive(self, "batch", "max_new_tokens")
        if self.dtype not in ("auto", "float32", "float16", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; expected 'auto', 'float32', 'float16' or 'bfloat16'")


@dataclass(frozen=True)
class OpenAIConfig:
    """Options of the reasoner ``openai``.

    Attributes:
        model: The model's name on the server.
        base_url: Where the server's API starts, with its version.
        api_key_env: Name of the environment variable that holds the key; may be unset where a server asks for none.
        retries: How often a request that failed for a passing reason (refused, timed out, 429, 5xx) is sent again.
        timeout: Seconds that one request may take.
        concurrency: Requests under way at once.
    """

    model: str = "llama2:7b-chat"
    base_url: str = "http://localhost:11434/v1"
    api_key_env: str = "OPENAI_API_KEY"
    retries: int = 4
    timeout: float = 60.0
    concurrency: int = 8

    def __post_init__(self) -> None:
        _positive(self, "timeout", "concurrency")
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; expected at least 0")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {self.base_url!r}; expected http://... or https://...")


def _positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}; expected more than 0")
