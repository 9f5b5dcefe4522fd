"""Which tensors of a model a checkpoint holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pixelvla_core.model.lora import base_name, is_lora

BASE_PREFIX = "base."


def lora_targets(names: Iterable[str]) -> list[str]:
    """The modules that carry a LoRA adapter, by their names in the base."""
    found = {name.split(".lora_A.")[0].removeprefix(BASE_PREFIX) for name in names if ".lora_A." in name}
    return sorted(found)


def stored(names: Iterable[str], groups: Mapping[str, str], trained: Iterable[str], *, whole: bool) -> list[str]:
    """The tensors that go into the delta: everything of ours, and of the base what was trained.

    Args:
        names: All tensors of the model.
        groups: Group -> regular expression over names in the base.
        trained: Groups of the base that a stage has trained.
        whole: Take the whole base.
    """
    patterns = [re.compile(groups[group]) for group in trained if group in groups]

    def wanted(name: str) -> bool:
        inner = base_name(name).removeprefix(BASE_PREFIX)
        ours = not name.startswith(BASE_PREFIX) or is_lora(name)
        return whole or ours or any(pattern.fullmatch(inner) for pattern in patterns)

    return [name for name in names if wanted(name)]
