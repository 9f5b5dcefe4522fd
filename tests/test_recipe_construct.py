"""From plain data to anybody's dataclass and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelvla_core.errors import RecipeError
from pixelvla_core.recipe.construct import construct, to_plain
from pixelvla_core.recipe.layers import full_parts, lay, leaves


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Inner:
    x: float
    y: tuple[int, ...] = ()


@dataclass
class Options:
    inner: Inner
    size: tuple[int, int] = (1, 2)
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    more: dict[str, Inner] = field(default_factory=dict)
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    folder: Path = Path("here")
    tags: frozenset[str] = frozenset()
    limit: int | None = None
    either: int | str = 0
    anything: Any = None


inner = st.fixed_dictionaries({"x": st.floats(allow_nan=False), "y": st.lists(st.integers(), max_size=3)})
plain = st.fixed_dictionaries(
    {
        "inner": inner,
        "size": st.lists(st.integers(), min_size=2, max_size=2),
        "names": st.lists(st.text()),
        "weights": st.dictionaries(st.text(), st.floats(allow_nan=False)),
        "more": st.dictionaries(st.text(), inner, max_size=2),
        "colour": st.sampled_from(["red", "blue"]),
        "mode": st.sampled_from(["fast", "slow"]),
        "folder": st.sampled_from(["a", "a/b", "/c"]),
        "tags": st.sets(st.text(), max_size=3).map(sorted),
        "limit": st.none() | st.integers(),
        "either": st.integers() | st.text(),
        "anything": st.none() | st.integers() | st.lists(st.text()),
    }
)


@given(plain)
def test_plain_data_makes_the_round_trip_through_a_dataclass(data):
    made = construct(Options, data)
    assert isinstance(made.inner, Inner)
    assert isinstance(made.inner.y, tuple)
    assert isinstance(made.folder, Path)
    assert isinstance(made.colour, Colour)
    assert to_plain(made) == data
    assert construct(Options, to_plain(made)) == made


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "inner is missing"),
        ({"inner": {}}, "inner.x is missing"),
        ({"inner": {"x": "a"}}, "inner.x is 'a'; expected a number"),
        ({"inner": {"x": 1, "y": [1, "b"]}}, "inner.y[1] is 'b'; expected a whole number"),
        ({"inner": {"x": 1, "z": 1}}, "no key 'inner.z'"),
        ({"inner": [1]}, "inner is [1]; expected a mapping with x, y"),
        ({"size": [1]}, "size is [1]; expected a list of 2"),
        ({"weights": {"a": "b"}}, "weights.a is 'b'; expected a number"),
        ({"weights": [1]}, "weights is [1]; expected a mapping"),
        ({"more": {"k": {"x": None}}}, "more.k.x is None; expected a number"),
        ({"colour": "green"}, "colour is 'green'; expected one of red, blue"),
        ({"mode": "medium"}, "mode is 'medium'; expected one of 'fast', 'slow'"),
        ({"limit": "none"}, "limit is 'none'; expected a whole number"),
        ({"names": "one"}, "names is 'one'; expected a list"),
        ({"names": [True]}, "names[0] is True; expected a text"),
        ({"folder": 3}, "folder is 3; expected the path"),
    ],
)
def test_what_does_not_fit_is_named_with_its_full_path(data, words):
    with pytest.raises(RecipeError) as caught:
        construct(Options, {"inner": {"x": 1.0}, **data} if data else data, "part.options")
    assert f"part.options.{words}" in str(caught.value) or words.replace("'", "'part.options.", 1) in str(caught.value)


trees = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda below: st.dictionaries(st.sampled_from("abcd"), below, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abcd"), trees, max_size=4)


@given(mappings, mappings)
def test_every_value_of_the_upper_layer_is_in_the_result_and_none_is_invented(lower, upper):
    merged = lay(lower, upper)
    under, over, result = dict(leaves(lower)), dict(leaves(upper)), dict(leaves(merged))
    assert all(result[key] == value for key, value in over.items() if value != {})
    assert all(value in (under.get(key), over.get(key)) for key, value in result.items())


@given(mappings)
def test_laying_a_layer_over_itself_or_over_nothing_changes_nothing(content):
    assert lay(content, content) == content
    assert lay({}, content) == content
    assert lay(content, {}) == content


def test_the_short_form_of_a_part_is_written_out_and_the_long_one_left_alone():
    short = {"head": "l1", "evaluate": {"env": "table", "seed": 1}, "pixel_encoder": None}
    long = {"head": {"name": "l1"}, "evaluate": {"env": {"name": "table"}, "seed": 1}, "pixel_encoder": None}
    assert full_parts(short) == long
    assert full_parts(long) == long
