"""From a dataset's name and options to the dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixelvla_core.data.dataset import Dataset
from pixelvla_core.recipe import configure

if TYPE_CHECKING:
    from pixelvla_core.plugins import Registry


def build_dataset(name: str, options: Mapping[str, Any], registry: Registry, path: str = "data.options") -> Dataset:
    """Build a dataset part.

    Args:
        registry: Where it is looked up; a dataset made of others, whose target takes ``registry``, is given it too.
        path: Where the options stand in the recipe, for messages.

    Raises:
        UserError: the part is unknown, or its options or its data are refused.
    """
    component = registry.get("dataset", name)
    config = configure(component, dict(options), path)
    takes_registry = "registry" in inspect.signature(component.load_target()).parameters
    return component.build(config, **({"registry": registry} if takes_registry else {}))
