"""Errors a user can cause, and the words for them.

Every such error is one paragraph: what was found, what was expected, what to do. The command line prints it without a
traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PixelVLAError(Exception):
    """Root of all errors that pixelvla raises on purpose."""


class UserError(PixelVLAError):
    """The user's input cannot be worked with; the message says what was found, what was expected and what to do."""


class CheckpointError(UserError):
    """A checkpoint or base weights are missing, damaged or do not fit the model they are loaded into."""


class RecipeError(UserError):
    """A recipe has an unknown key, a value out of range or layers that do not fit together."""


class PluginError(UserError):
    """A plugin is unknown, broken, or two plugins claim one name."""


class ContractError(UserError):
    """An action contract, or the data it is applied to, does not fit."""


class DataError(UserError):
    """A dataset or its annotations are damaged or lack something that the recipe asks for."""


def sentence(text: str) -> str:
    """Return a text with a full stop, unless it ends a sentence already."""
    return text if text.endswith((".", "?")) else text + "."


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known name, or an empty string if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
