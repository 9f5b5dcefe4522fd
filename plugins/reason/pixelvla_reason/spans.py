"""What a language model is asked, and which answers count: words that stand together in the instruction."""

from __future__ import annotations

import re

from pixelvla_core.annotate.models import Target
from pixelvla_reason.phrase import tokens_of

LONGEST = 8
"""Words in the longest answer."""
ARTICLES = frozenset({"a", "an", "the", "this", "that", "your", "my"})

PROMPT = """\
A robot is given an instruction. Name the one object that it has to grasp first, in the words of the instruction: with \
its colour, size and material, but without its article and without where it is. Answer with these words only; answer \
"none" if no object is named.

Instruction: Put the Eggplant in Yellow Basket
Object: Eggplant
Instruction: pick up the black bowl between the plate and the ramekin and place it on the plate
Object: black bowl
Instruction: open the top drawer of the cabinet and put the cup inside
Object: top drawer
Instruction: the yellow and white mug should be moved next to the box of cereal
Object: yellow and white mug

Instruction: {instruction}
Object:"""
"""After the pipeline of the paper, section 4.2: "extract the textual description of the target object"."""

STRICTER = (
    PROMPT
    + """

Your answer has to be a part of this instruction, letter by letter: "{instruction}". Copy that part and write nothing \
else: no sentence, no quotation marks, no other word. Object:"""
)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_LABEL = re.compile(r"^\s*(the\s+)?(target\s+)?(object|answer)\s*(is)?\s*:?\s+", re.IGNORECASE)


def ask(prompt: str, instruction: str) -> str:
    """Fill an instruction into a prompt; on one line, so that it cannot pass for another part of the prompt."""
    return prompt.replace("{instruction}", " ".join(instruction.split()))


def word_spans(instruction: str) -> list[str]:
    """All runs of up to ``LONGEST`` words without a mark between them that start with no article, each once."""
    tokens = tokens_of(instruction)
    spans: dict[str, None] = {}
    for first, token in enumerate(tokens):
        if token.mark or token.word in ARTICLES:
            continue
        for last in tokens[first : first + LONGEST]:
            if last.mark:
                break
            spans[_plain(instruction[token.start : last.end])] = None
    return list(spans)


def as_target(answer: str, instruction: str) -> Target | None:
    """Return the target that a model's free answer names; None if it is no part of the instruction."""
    line = next((line.strip() for line in _THOUGHT.sub("", answer).splitlines() if line.strip()), "")
    said = [token.word for token in tokens_of(line) if not token.mark]
    found = located(said, instruction)
    if not found:
        said = [token.word for token in tokens_of(_LABEL.sub("", line)) if not token.mark]
        found = located(said, instruction)
    if not found and said in ([], ["none"]):
        return Target("", f"the model finds no object to grasp in {instruction!r}")
    return Target(found) if found else None


def located(said: list[str], instruction: str) -> str:
    """Return some words as they stand in the instruction, in lower case, without an article in front; or ""."""
    while said and said[0] in ARTICLES:
        said = said[1:]
    tokens = tokens_of(instruction)
    words = [token.word for token in tokens]
    for first in range(len(words) - len(said) + 1 if said else 0):
        if words[first : first + len(said)] == said:
            return _plain(instruction[tokens[first].start : tokens[first + len(said) - 1].end]).lower()
    return ""


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text)
