"""Tokens of an instruction, and the noun phrase that starts at one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pixelvla_reason.words import Words

_TOKEN = re.compile(r"\d+\.\d+|[^\W_]+(?:[-'’&][^\W_]+)*|[,.;:!?()/]")


@dataclass(frozen=True)
class Token:
    """One word or mark: in lower case, and where it stands in the instruction."""

    word: str
    start: int
    end: int

    @property
    def mark(self) -> bool:
        return not self.word[0].isalnum()


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: its tokens from ``first`` up to but without ``last``; none if they are equal."""

    first: int
    last: int

    def __bool__(self) -> bool:
        return self.last > self.first


def tokens_of(instruction: str) -> list[Token]:
    """Split an instruction; underscores part words, as in names of tasks."""
    return [Token(match[0].lower().replace("’", "'"), *match.span()) for match in _TOKEN.finditer(instruction)]


class Reader:
    """Reads noun phrases out of one instruction's tokens."""

    def __init__(self, tokens: Sequence[Token], words: Words) -> None:
        self.tokens, self.words = tokens, words

    def word(self, at: int) -> str:
        """The word at an index; "" outside."""
        return self.tokens[at].word if 0 <= at < len(self.tokens) else ""

    def of(self, at: int, *lists: str) -> bool:
        """Whether the word at an index is in one of some lists."""
        return any(self.word(at) in self.words[name] for name in lists)

    def phrase(self, at: int) -> Phrase:
        """Return the noun phrase that starts at an index, without its articles; an empty one if none does."""
        first = at
        while self._before_noun(first):
            first += 1
        last = first
        while last < len(self.tokens) and not self._ends(first, last):
            last += 1
        if self.word(last) == "of" and (self.of(last - 1, "determiners.part") and self._parts_only(first, last)):
            return self.phrase(last + 1)
        return self._trimmed(first, last)

    def _before_noun(self, at: int) -> bool:
        """Whether a word belongs to no name but may stand before one: an article, a number, an adverb."""
        if self.of(at, "determiners.list"):
            return True
        if self.of(at, "determiners.quantity") and self.word(at + 1) == "of":
            return True
        number = self.word(at).isdigit() and at + 1 < len(self.tokens) and not self._stops(at + 1)
        return number or self._adverb(at) or (self.word(at) == "of" and self.of(at - 1, "determiners.quantity"))

    def _adverb(self, at: int) -> bool:
        word = self.word(at)
        return word.endswith("ly") and len(word) > 4 and word not in self.words["phrase.not_adverbs"]

    def _ends(self, first: int, at: int) -> bool:
        """Whether a phrase that starts at ``first`` ends before the word ``at``."""
        word = self.word(at)
        if word in ("and", ",", "/"):
            return not self._joins(first, at)
        if word == "or":
            return at == first or self.tokens[at + 1 :] == [] or self._stops(at + 1) or self._determiner(at + 1)
        if word == "of":
            return not self._contains(at)
        if self.tokens[at].mark or self._stops(at):
            return True
        return self._named(first, at) and self._soft(at)

    def _determiner(self, at: int) -> bool:
        return self.of(at, "determiners.list")

    def _stops(self, at: int) -> bool:
        return self.of(at, "phrase.end", "pronouns.list", "phrase.noise", "negation.list") or (
            self.word(at),
            self.word(at + 1),
        ) in (("cardboard", "fence"),)

    def _named(self, first: int, at: int) -> bool:
        """Whether the words up to ``at`` hold a noun already; the last colour may be one ("orange")."""
        words = (index for index in range(first, at) if self.word(index) not in ("and", ","))
        return any(not self.of(index, "phrase.adjectives", "phrase.soft") for index in words)

    def _soft(self, at: int) -> bool:
        """Whether a word after a noun tells where or how instead of what."""
        new_step = self.word(at) in self.words.verbs and self._determiner(at + 1)
        if new_step or self._adverb(at) or self.of(at, "verbs.step") or self._determiner(at) or self._done(at):
            return True
        if not self.of(at, "phrase.soft"):
            return False
        return not self.of(at + 1, "phrase.drawerlike")

    def _done(self, at: int) -> bool:
        """Whether a participle after a noun tells what becomes of it: "the towel folded in half"."""
        word, nothing_follows = self.word(at), at + 1 >= len(self.tokens) or self.tokens[at + 1].mark
        return word.endswith("ed") and word in self.words.verbs and (nothing_follows or self._stops(at + 1))

    def _joins(self, first: int, at: int) -> bool:
        """Whether "and" or a comma joins two adjectives of one thing: "yellow and white mug"."""
        after = at + 1 + (self.word(at) == "," and self.word(at + 1) == "and")
        if at == first or not self.of(after, "phrase.adjectives") or not self.of(at - 1, "phrase.adjectives"):
            return False
        following = self.word(after + 1)
        return (
            not self._named(first, at) and bool(following) and (following in ("and", ",") or not self._stops(after + 1))
        )

    def _contains(self, at: int) -> bool:
        """Whether "of" tells what something consists of: "box of cereal", but not "drawer of the cabinet"."""
        article = self._determiner(at + 1) or self._stops(at + 1) or at + 1 >= len(self.tokens)
        return self.of(at - 1, "determiners.container") and not article

    def _parts_only(self, first: int, last: int) -> bool:
        return all(self.of(at, "determiners.part", "phrase.adjectives") for at in range(first, last))

    def _trimmed(self, first: int, last: int) -> Phrase:
        """Drop words at the end that are no part of a name: places, numbers of scenes."""
        while last - first > 1 and (self._soft(last - 1) or (last == len(self.tokens) and self._number(last - 1))):
            last -= 1
        places = not self._determiner(first - 1) and all(self._soft(at) for at in range(first, last))
        return Phrase(first, first) if places or self.of(last - 1, "pronouns.robot") else Phrase(first, last)

    def _number(self, at: int) -> bool:
        return self.word(at).isdigit() and len(self.word(at)) > 1
