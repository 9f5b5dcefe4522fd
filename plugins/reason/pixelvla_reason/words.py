"""The word lists of ``words.toml``, with the forms of every verb."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_VOWELS = "aeiou"


@dataclass(frozen=True)
class Words:
    """What the grammar knows about single words, all in lower case.

    Attributes:
        verbs: From every form of a verb to its base form.
        particles: From a base form to what may stand between the verb and its object.
        others: The other lists, by their names in the file.
    """

    verbs: dict[str, str]
    particles: dict[str, frozenset[str]]
    others: dict[str, frozenset[str]]

    def __getitem__(self, name: str) -> frozenset[str]:
        return self.others[name]


@cache
def words() -> Words:
    """Read the lists that come with this package."""
    lists = tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))
    entries = [entry.partition(":") for entry in lists["verbs"]["list"].split()]
    verbs = {form: base for base, _, _ in entries for form in forms(base)}
    verbs |= {form: base for form, _, base in (entry.partition(":") for entry in lists["verbs"]["irregular"].split())}
    for form in lists["verbs"]["never"].split():
        verbs.pop(form, None)
    return Words(
        verbs=verbs,
        particles={base: frozenset(filter(None, between.split(","))) for base, _, between in entries},
        others={
            f"{section}.{name}": frozenset(text.split()) for section, of in lists.items() for name, text in of.items()
        },
    )


def forms(base: str) -> set[str]:
    """The forms of a regular verb: "slide" -> slide, slides, slid(e)d, sliding."""
    if base.endswith("e"):
        return {base, base + "s", base + "d", base[:-1] + "ing"}
    if base.endswith("y") and base[-2] not in _VOWELS:
        return {base, base[:-1] + "ies", base[:-1] + "ied", base + "ing"}
    plural = base + ("es" if base.endswith(("s", "sh", "ch", "x", "z")) else "s")
    twice = (
        len(base) <= 5
        and base[-1] not in "wxyhk" + _VOWELS
        and base[-2] in _VOWELS
        and base[-3:-2] not in (*_VOWELS, "")
    )
    stem = base + base[-1] if twice else base
    return {base, plural, stem + "ed", stem + "ing", base + "ed", base + "ing"}
