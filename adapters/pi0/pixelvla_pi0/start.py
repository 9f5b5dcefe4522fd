"""A small pi0 before any training: LeRobot's own classes, seeded random weights, and a tokenizer of whole words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pixelvla_core.api import UserError

from .sizes import Sizes
from .state import STATISTICS
from .weights import random, save

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "\n")
"""Ids 0 to 4; the first four stand where PaliGemma's vocabulary has them."""


def words_of(texts: Iterable[str]) -> list[str]:
    """Every word and punctuation mark, in lower case, sorted."""
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})


def word_tokenizer(words: Iterable[str]) -> Any:
    """A tokenizer of whole words that, like PaliGemma's, begins with <bos> and has an id for the newline."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *words]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]+"), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    named = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def write_random(
    folder: Path,
    words: Iterable[str],
    *,
    sizes: Sizes,
    config: Mapping[str, Any],
    features: Mapping[str, tuple[int, ...]],
    statistics: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Any:
    """Write a pi0 of these sizes with random weights, in the layout that the adapter reads, and return it.

    Args:
        words: What the tokenizer knows.
        config: Fields of LeRobot's `PI0Config`.
        features: Shapes of "observation.images.<camera>", "observation.state" and "action".
        statistics: Data set -> {"action": ..., "proprio": ...}.

    Raises:
        UserError: there are more words than the vocabulary has room for.
    """
    from lerobot.policies.pi0.configuration_pi0 import PI0Config

    words = list(words)
    if len(words) + len(SPECIAL) > sizes.vocabulary:
        raise UserError(
            f"There are {len(words)} words and {len(SPECIAL)} special ones, but the vocabulary has {sizes.vocabulary}. "
            "Raise `vocabulary`."
        )
    described = {name: _feature(name, shape) for name, shape in features.items()}
    inputs = {name: feature for name, feature in described.items() if name != "action"}
    made = PI0Config(
        **{"device": "cpu", **config}, input_features=inputs, output_features={"action": described["action"]}
    )
    policy = random(made, sizes, seed)
    save(policy, folder, sizes=sizes, tokenizer=word_tokenizer(words))
    if statistics:
        (folder / STATISTICS).write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
    return policy


def _feature(name: str, shape: tuple[int, ...]) -> Any:
    from lerobot.configs import FeatureType, PolicyFeature

    kind = FeatureType.ACTION if name == "action" else FeatureType.STATE
    return PolicyFeature(type=FeatureType.VISUAL if ".images." in name else kind, shape=tuple(shape))
