"""The grammar on labelled instructions of public benchmarks, and on ones that try its rules.

``instructions.jsonl`` was labelled before the grammar was written, except the source "own", half of which was added to
try rules, and "second", which somebody else labelled. A third, chosen by a checksum, is held out: the grammar was never
changed because of an answer there. ``benchmarks.jsonl`` was written later, by somebody who had seen neither the grammar
nor the first list: as first measured it got 93.2 % of the held-out half of it. Its source "phrasings" tried the rules.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixelvla_reason.accuracy import score
from pixelvla_reason.config import GrammarConfig
from pixelvla_reason.grammar import Grammar, target
from pixelvla_reason.words import forms

from pixelvla_core.annotate.models import Reasoner
from pixelvla_core.plugins import PluginManager

LIST = Path(__file__).with_name("instructions.jsonl")
LATER = LIST.with_name("benchmarks.jsonl")
KNOWN = "pick up the red and or , of put it left drawer is moved from to a not -ly"


def test_it_is_a_reasoner_that_the_plugin_offers() -> None:
    component = PluginManager.load().registry.get("reasoner", "grammar")
    made = component.build(GrammarConfig())
    assert isinstance(made, Reasoner)
    assert [answer.text for answer in made.targets(["pick coke can", "open top drawer"])] == ["coke can", "top drawer"]
    assert made.targets([]) == []


@pytest.mark.parametrize("split", ["development", "held-out"])
def test_accuracy(split: str) -> None:
    scores = {source: of for (part, source), of in score(LIST).items() if part == split}
    assert scores["all"].all > 250
    assert scores["all"].right / scores["all"].all >= 0.95, scores["all"].wrong
    for source in ("libero", "bridge", "fractal", "second"):
        assert scores[source].right / scores[source].all >= 0.95, scores[source].wrong


@pytest.mark.parametrize("split", ["development", "held-out"])
def test_accuracy_on_the_later_list(split: str) -> None:
    of = score(LATER)[split, "all"]
    assert of.all > 150
    assert of.right / of.all >= 0.95, f"{of.right} of {of.all}"


@pytest.mark.parametrize("text", ["", "...", "grab it", "go", "pick up", "move left", "do not touch anything", "stop"])
def test_an_instruction_without_an_object_says_so(text: str) -> None:
    answer = target(text)
    assert answer.text == ""
    assert "no object" in answer.reason


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Put the Eggplant in Yellow Basket", "eggplant"),
        ("PICK UP THE RED CUP!!", "red cup"),
        ("KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet", "black bowl"),
        ("  pick   up the\tred \n cup ", "red cup"),
        ("move the robot's cup", "robot's cup"),
        ("grab the café au lait", "café au lait"),
    ],
)
def test_spelling_does_not_matter(text: str, wanted: str) -> None:
    assert target(text).text == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("open the drawer and put the cup in it", "drawer"),
        ("before opening the drawer, pick up the cup", "cup"),
        ("put the cup in the drawer after opening the drawer", "drawer"),
        ("in order to clean the table, pick up the sponge", "sponge"),
        ("xylograph the broom against the wall", "broom"),
        ("don't touch the bowl, take the cup", "cup"),
        ("the cup must be put on the plate", "cup"),
        ("wipe the plate with the sponge", "sponge"),
        ("wipe the plate with care", "care"),  # what is a tool and what is not, the grammar cannot know
        ("pour the milk from the jug into the bowl", "jug"),
        ("grab the box of cereal", "box of cereal"),
        ("grab the lid of the box", "lid"),
        ("grab the corner of the cloth", "cloth"),
        ("grab one of the cups", "cups"),
        ("put the left mug on the right plate", "left mug"),
        ("move the mug left of the plate", "mug"),
        ("push the open drawer shut", "open drawer"),
        ("move the arm to the cup and grab it", "cup"),
        ("pick the standing can", "standing can"),
        ("take the can standing on the table", "can"),
        ("water the rose with the jug", "jug"),
        ("put the water jug on the tray", "water jug"),
        ("with a fork turn the sausage", "fork"),
        ("using the rake gather the leaves", "rake"),
        ("raise the sausage and turn it with the fork", "sausage"),
        ("slice the sausage and wash it with the brush", "brush"),
        ("drop into the bin the wrapper", "wrapper"),
        ("make sure that the lid is shut", "lid"),
        ("grab the doll named Ann", "doll"),
    ],
)
def test_rules(text: str, wanted: str) -> None:
    assert target(text).text == wanted


@given(st.text(alphabet="pick the cup and of, on it É1'\n_-", max_size=60))
def test_what_is_found_stands_in_any_text(text: str) -> None:
    answer = target(text)
    assert answer.text in " ".join(text.lower().replace("_", " ").split())
    assert bool(answer.text) != bool(answer.reason)


@given(st.lists(st.sampled_from(KNOWN.split())))
def test_any_order_of_known_words_is_read(words: list[str]) -> None:
    assert Grammar().targets([" ".join(words)])[0] == target(" ".join(words))


@pytest.mark.parametrize(
    ("base", "some"),
    [
        ("place", {"place", "places", "placed", "placing"}),
        ("put", {"puts", "putting"}),
        ("carry", {"carries", "carried", "carrying"}),
        ("push", {"pushes", "pushed"}),
        ("grab", {"grabbed", "grabbing"}),
        ("open", {"opens", "opened", "opening"}),
    ],
)
def test_forms_of_verbs(base: str, some: set[str]) -> None:
    assert some <= forms(base)
