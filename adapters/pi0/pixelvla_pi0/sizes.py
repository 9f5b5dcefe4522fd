"""LeRobot's own pi0 classes at another size.

LeRobot's configuration knows two sizes of Gemma and writes the vision tower, the vocabulary and the projector's width
into the code. While `resized` is open, the constructors that LeRobot calls change these numbers in the configuration
they are given and then build LeRobot's and transformers' own modules; nothing is re-implemented.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pixelvla_core.api import CheckpointError, read_json
from pixelvla_core.errors import suggest

from .splice import replaced

FILE = "sizes.json"
"""Lies beside config.json, which LeRobot reads and which therefore has LeRobot's fields only."""

HEADS = 8
"""Attention heads; LeRobot's joint attention has this number in its code."""

_BUILDING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a small pi0; language model and expert have the same depth and heads, for they attend jointly.

    Attributes:
        width, mlp: Of the language model. expert_width, expert_mlp: of the action expert.
        depth: Layers of each. head_width: of one of the 8 heads; all share one key and value head, as in pi0.
        vision_width, vision_depth, vision_heads, vision_mlp: Of the vision tower. patch: side of a patch in pixels.
        vocabulary: Rows of the embedding.
    """

    width: int = 64
    mlp: int = 128
    depth: int = 2
    head_width: int = 16
    expert_width: int = 32
    expert_mlp: int = 64
    vision_width: int = 48
    vision_depth: int = 4
    vision_heads: int = 4
    vision_mlp: int = 96
    patch: int = 14
    vocabulary: int = 128

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(f"{FILE} has {item.name}: {value!r}; expected a whole number above zero.")
        if self.vision_width % self.vision_heads or self.head_width % 2 or self.expert_width % 2:
            raise CheckpointError(
                f"{FILE} has a vision tower of width {self.vision_width} with {self.vision_heads} heads, an expert of "
                f"width {self.expert_width} and heads of width {self.head_width}. The first must divide; the last two "
                "must be even."
            )

    @classmethod
    def read(cls, folder: Path) -> Sizes | None:
        """The sizes beside a checkpoint, or None where there are none: then it has LeRobot's own.

        Raises:
            CheckpointError: the file is damaged or has other keys.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        values = read_json(path)
        known = [item.name for item in fields(cls)]
        if set(values) != set(known):
            given = sorted(set(values) ^ set(known))
            raise CheckpointError(
                f"{path} has other keys than expected: {', '.join(given)}.{suggest(given[0], known)} Expected "
                f"{', '.join(known)}."
            )
        return cls(**values)

    def to_json(self) -> dict[str, int]:
        """Plain data that ``json`` can write."""
        return asdict(self)


@contextmanager
def resized(sizes: Sizes | None) -> Iterator[None]:
    """Let LeRobot build pi0 with these sizes; None leaves everything as it is. Loading by LeRobot works within too."""
    if sizes is None:
        yield
        return
    from lerobot.policies.pi0 import modeling_pi0

    functions = {
        "get_gemma_config": _gemma(sizes, modeling_pi0.GemmaConfig),
        "PaliGemmaForConditionalGenerationWithPiGemma": _paligemma(
            sizes, modeling_pi0.PaliGemmaForConditionalGenerationWithPiGemma
        ),
        "PiGemmaForCausalLM": _expert(sizes, modeling_pi0.PiGemmaForCausalLM),
    }
    with _BUILDING, replaced(modeling_pi0, **functions):
        yield


def _gemma(sizes: Sizes, make: Any) -> Any:
    def config(variant: str) -> Any:
        expert = variant == "gemma_300m"
        return make(
            width=sizes.expert_width if expert else sizes.width,
            depth=sizes.depth,
            mlp_dim=sizes.expert_mlp if expert else sizes.mlp,
            num_heads=HEADS,
            num_kv_heads=1,
            head_dim=sizes.head_width,
        )

    return config


def _paligemma(sizes: Sizes, make: Any) -> Any:
    def build(config: Any) -> Any:
        vision, text = config.vision_config, config.text_config
        vision.hidden_size, vision.num_hidden_layers = sizes.vision_width, sizes.vision_depth
        vision.num_attention_heads, vision.intermediate_size = sizes.vision_heads, sizes.vision_mlp
        vision.patch_size, vision.projection_dim = sizes.patch, sizes.width
        text.vocab_size = config._vocab_size = sizes.vocabulary
        return make(config=config)

    return build


def _expert(sizes: Sizes, make: Any) -> Any:
    def build(config: Any) -> Any:
        config.vocab_size = 1  # the expert reads no words; LeRobot keeps an output layer for them that nothing uses
        return make(config=config)

    return build
