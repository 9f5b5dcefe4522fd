"""The reasoner ``grammar``: the first thing that an instruction has grasped, by a few rules over word lists.

Each verb is tried from the left. What it has grasped is the tool or the source where the verb is about those ("wipe the
table with the sponge"), its subject where it is passive ("the cup should be moved"), what "it" stands for, or else the
object that follows it. A verb with none of them ("pick and place", "move to the table") is passed over. Without any
verb, the phrase at the start is taken ("red cup").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pixelvla_core.annotate.models import Target
from pixelvla_reason.config import GrammarConfig
from pixelvla_reason.phrase import Phrase, Reader, tokens_of
from pixelvla_reason.words import words

_NONE = Phrase(0, 0)


class Grammar:
    """See the module; needs no model and no download."""

    def __init__(self, options: GrammarConfig | None = None) -> None:
        self.options = options or GrammarConfig()

    def targets(self, instructions: Sequence[str]) -> list[Target]:
        """Return one target for each instruction."""
        return [target(instruction) for instruction in instructions]


def target(instruction: str) -> Target:
    """Return what an instruction has grasped first, in its own words and lower case."""
    sentence = _Sentence(instruction)
    found = sentence.first()
    if not found:
        return Target("", f"no object to grasp is named in {instruction!r}")
    start, end = sentence.tokens[found.first].start, sentence.tokens[found.last - 1].end
    return Target(re.sub(r"[\s_]+", " ", instruction[start:end]).lower())


class _Sentence(Reader):
    """One instruction, and what it has grasped."""

    def __init__(self, instruction: str) -> None:
        super().__init__(tokens_of(instruction), words())

    def first(self) -> Phrase:
        """What is grasped first; an empty phrase if nothing is."""
        verbs = [at for at in range(len(self.tokens)) if self._verb(at)]
        if self.word(0) == "with" and self._determiner(1) and (tool := self.phrase(1)):
            return tool
        for at in self._in_time(verbs):
            if found := self._grasped(at):
                return found
        return _NONE if 0 in verbs else self._named_only()

    def _verb(self, at: int) -> bool:
        """Whether a word is a verb here: no noun or adjective after an article, nothing that is forbidden."""
        if self.word(at) not in self.words.verbs or self.of(at - 1, "verbs.unless_after"):
            return False
        if self.of(at, "verbs.before_article") and not self._determiner(at + 1):
            return False
        described = self.word(at) in self.words["phrase.soft"] and self.of(at - 1, "auxiliaries.list")
        return not described or self._participle(at)

    def _participle(self, at: int) -> bool:
        word = self.word(at)
        return not word.endswith(("ing", "s")) and (
            word != self.words.verbs[word] or word in ("put", "set", "cut", "shut")
        )

    def _in_time(self, verbs: list[int]) -> list[int]:
        """Put what happens after something behind it: "before closing the drawer, put ...", "... after opening it"."""
        wanted = [at for at in verbs if not self.of(at - 1, "negation.list")]
        return sorted(wanted, key=lambda at: (self._late(at), self.word(at - 1) != "after"))

    def _late(self, at: int) -> bool:
        """Whether a verb tells what comes later, or what it is all for: "to clean the table, pick up the sponge"."""
        aim = self.word(at - 1) == "to" and (at == 1 or self.word(at - 2) == "order")
        return aim or self.word(at - 1) == "before"

    def _grasped(self, at: int) -> Phrase:
        verb = self.words.verbs[self.word(at)]
        if verb in self.words["verbs.tool"] and (tool := self._after(at, "with", "using")):
            return tool
        if verb in self.words["verbs.source"] and (source := self._after(at, "from")):
            return source
        if self.of(at - 1, "auxiliaries.list") and self._participle(at):
            return self._subject(at - 1)
        return self._object(at, verb)

    def _after(self, at: int, *prepositions: str) -> Phrase:
        """The phrase after one of some prepositions in the same step as the verb."""
        for index in range(at + 1, len(self.tokens)):
            if self.word(index) in prepositions:
                return self.phrase(index + 1)
            another = self._verb(index) and self.word(index + 1) not in ("it", "them")
            if another or self.word(index) in (".", ";"):
                break
        return _NONE

    def _object(self, at: int, verb: str) -> Phrase:
        start, between = at + 1, self.words.particles.get(verb, frozenset())
        while self.word(start) in between or (self.of(start, "pronouns.indirect") and self._object_follows(start)):
            start += 1
        if self.word(start) in ("it", "them"):
            return self._antecedent(start)
        found = self.phrase(start) or self._behind_place(start)
        receiver = not found and self.of(start + 1, "pronouns.robot")  # "give the robot the block"
        return self.phrase(start + 2) if receiver and self._determiner(start + 2) else found

    def _behind_place(self, at: int) -> Phrase:
        """The object behind the place where it goes: "put on the plate the cookie"."""
        place = self.phrase(at + 1) if self.of(at, "phrase.place") else _NONE
        return self.phrase(place.last) if place and self._determiner(place.last) else _NONE

    def _object_follows(self, at: int) -> bool:
        return self.of(at + 1, "determiners.list") or bool(self.phrase(at + 1))

    def _antecedent(self, at: int) -> Phrase:
        """What "it" stands for: the first thing with an article before it."""
        for index in range(at):
            if self._determiner(index) and (found := self.phrase(index)):
                return found
        return _NONE

    def _subject(self, end: int) -> Phrase:
        """The phrase in front of a passive verb: from the first article of its clause, else from the clause's start."""
        start = end
        while start > 0 and not self.tokens[start - 1].mark and self.word(start - 1) not in ("then", "that"):
            start -= 1
        starts = [index for index in range(start, end) if self._determiner(index)] or [start]
        return self.phrase(starts[0])

    def _named_only(self) -> Phrase:
        """The phrase at the start of an instruction that is no command, such as "red cup" or "drawer open"."""
        unknown_verb = self._determiner(1) and not self._determiner(0)
        found = self.phrase(1 if unknown_verb else 0)
        idle = self.of(found.first, "phrase.idle") or any(self.of(at, "pronouns.robot") for at in range(found.last))
        return _NONE if idle else found
