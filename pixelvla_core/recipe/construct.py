"""From plain data (mappings, lists, numbers, texts) to dataclasses, naming the full path of whatever does not fit.

The same few lines check the fixed schema and the options of anybody's part. OmegaConf's own structured configs are not
used for this: they know neither ``tuple`` nor ``Literal``, which other people's dataclasses may have.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pixelvla_core.errors import RecipeError, UserError, sentence, suggest


def construct[T](cls: type[T], data: Any, path: str = "") -> T:
    """Build a dataclass from a mapping.

    Args:
        cls: the dataclass; what its ``__post_init__`` raises should begin with the name of the field.
        data: a mapping with the dataclass's fields as keys.
        path: the key in the recipe where the mapping stands, for messages.

    Raises:
        RecipeError: an unknown or missing key, a value of another type, or one that ``__post_init__`` refuses.
    """
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        raise RecipeError(f"{path or 'The recipe'} is {data!r}; expected a mapping with {', '.join(known)}.")
    for key in data:
        if key not in known:
            raise RecipeError(_unknown(join(path, str(key)), str(key), known))
    hints = get_type_hints(cls)
    values = {key: _convert(hints[key], value, join(path, key)) for key, value in data.items()}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.init and field.name not in values and field.default is field.default_factory is MISSING:
            raise RecipeError(f"{join(path, field.name)} is missing; give it in a layer or as {field.name}=VALUE.")
    try:
        return cls(**values)
    except (ValueError, UserError) as error:
        raise RecipeError(_located(str(error), path, known)) from error


def to_plain(value: Any) -> Any:
    """Return a dataclass, or what its fields hold, as mappings, lists, numbers and texts that YAML knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def join(path: str, key: str) -> str:
    """Return the path of a key within a path."""
    return f"{path}.{key}" if path else key


def _unknown(path: str, key: str, known: Sequence[str]) -> str:
    listed = ", ".join(known) or "none, this part has no options"
    return f"There is no key {path!r} in a recipe.{suggest(key, known)} Known there: {listed}."


def _located(message: str, path: str, known: Sequence[str]) -> str:
    """Put the path before a message; directly, if the message begins with the name of a field."""
    if message.split(maxsplit=1)[0].split(".")[0] in known if message else False:
        message = join(path, message)
    elif path:
        message = f"{path}: {message}"
    return sentence(message)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, path)
    if origin is Literal:
        return _expect(value in get_args(hint), value, path, f"one of {', '.join(map(repr, get_args(hint)))}")
    if is_dataclass(hint) and isinstance(hint, type):
        return construct(hint, value, path)
    converter = _CONVERTERS.get(origin or hint)
    if converter is not None:
        return converter(hint, value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        names = [str(item.value) for item in hint]
        return hint(_expect(value in names, value, path, f"one of {', '.join(names)}"))
    return value


def _convert_union(options: Sequence[Any], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = [option for option in options if option is not type(None)]
    for option in options[:-1]:
        try:
            return _convert(option, value, path)
        except RecipeError:
            continue
    return _convert(options[-1], value, path)


def _expect(holds: bool, value: Any, path: str, expected: str) -> Any:
    if not holds:
        raise RecipeError(f"{path} is {value!r}; expected {expected}.")
    return value


def _number(hint: Any, value: Any, path: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(_expect(good, value, path, "a number"))


def _integer(hint: Any, value: Any, path: str) -> int:
    """A whole number; ``1e5``, which YAML reads as a float, is one too."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(_expect(whole and not isinstance(value, bool), value, path, "a whole number"))


def _boolean(hint: Any, value: Any, path: str) -> bool:
    return _expect(isinstance(value, bool), value, path, "true or false")


def _text(hint: Any, value: Any, path: str) -> str:
    return _expect(isinstance(value, str), value, path, "a text (in quotes, if YAML reads it as something else)")


def _path(hint: Any, value: Any, path: str) -> Path:
    return Path(_expect(isinstance(value, str | Path), value, path, "the path of a file or folder"))


def _sequence(hint: Any, value: Any, path: str) -> Any:
    good = isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes)
    items = list(_expect(good, value, path, "a list, such as [a, b]"))
    arguments = [argument for argument in get_args(hint) if argument is not Ellipsis]
    if (get_origin(hint) or hint) is tuple and arguments and Ellipsis not in get_args(hint):
        _expect(len(items) == len(arguments), value, path, f"a list of {len(arguments)}")
    else:
        arguments = (arguments or [Any]) * len(items)
    made = [_convert(item, each, f"{path}[{i}]") for i, (item, each) in enumerate(zip(arguments, items, strict=True))]
    wanted = get_origin(hint) or hint
    return wanted(made) if wanted in (tuple, set, frozenset) else made


def _mapping(hint: Any, value: Any, path: str) -> dict[str, Any]:
    _expect(isinstance(value, Mapping), value, path, "a mapping, such as {a: 1}")
    item = get_args(hint)[1] if get_args(hint) else Any
    return {str(key): _convert(item, each, join(path, str(key))) for key, each in value.items()}


_CONVERTERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    float: _number,
    int: _integer,
    bool: _boolean,
    str: _text,
    Path: _path,
    **dict.fromkeys((list, tuple, set, frozenset, Sequence), _sequence),
    **dict.fromkeys((dict, Mapping), _mapping),
}
