"""The freeze plan: everything off, then the listed groups on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from pixelvla_core.errors import RecipeError, suggest
from pixelvla_core.model.lora import base_name, is_lora
from pixelvla_core.recipe.schema import OWN_GROUPS

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA

_PARTS = {"pixel_encoder.": "pixel", "prompt_encoder.": "prompt", "head.": "head"}
OTHER = "other"


@dataclass(frozen=True)
class Row:
    """One group of parameters in the table: how many tensors and numbers it has, and whether it trains."""

    group: str
    tensors: int
    parameters: int
    trained: bool


def apply(model: PixelVLA, groups: Iterable[str]) -> list[Row]:
    """Freeze all parameters but those of the groups.

    Args:
        groups: "pixel", "prompt", "head" (with its queries), "lora", or groups of the backbone's spec.

    Returns:
        The table, one row per group that has parameters; those of the base in no group are the row "other".

    Raises:
        RecipeError: a group is unknown or has no parameters; nothing is changed then.
    """
    members = parameters(model)
    wanted = list(groups)
    for group in wanted:
        _check(group, members, model)
    for group, found in members.items():
        for parameter in found:
            # Quantised weights are integers, which cannot require a gradient.
            parameter.requires_grad_(group in wanted and parameter.is_floating_point())
    model.train(model.training)
    return [
        Row(group, len(found), sum(parameter.numel() for parameter in found), group in wanted)
        for group, found in members.items()
        if found
    ]


def parameters(model: PixelVLA) -> dict[str, list[nn.Parameter]]:
    """Every parameter of the model by group; each is in exactly one, the first of the spec that matches."""
    patterns = {group: re.compile(pattern) for group, pattern in model.backbone.spec.groups.items()}
    members: dict[str, list[nn.Parameter]] = {group: [] for group in (*OWN_GROUPS, *patterns, OTHER)}
    for name, parameter in model.named_parameters():
        members[_group(name, patterns)].append(parameter)
    return members


def _group(name: str, patterns: dict[str, re.Pattern[str]]) -> str:
    for prefix, group in _PARTS.items():
        if name.startswith(prefix):
            return group
    if is_lora(name):
        return "lora"
    inner = base_name(name).removeprefix("base.")
    return next((group for group, pattern in patterns.items() if pattern.fullmatch(inner)), OTHER)


def _check(group: str, members: dict[str, list[nn.Parameter]], model: PixelVLA) -> None:
    known = [name for name in members if name != OTHER]
    if group not in known:
        raise RecipeError(
            f"A stage trains the group {group!r}, which this model does not have.{suggest(group, known)} "
            f"Groups: {', '.join(known)}."
        )
    if not members[group]:
        remedy = {
            "lora": "set `lora.rank` above 0",
            "pixel": "name a `pixel_encoder`",
            "prompt": "name a `prompt_encoder` that has parameters (overlay has none)",
            "head": "name a `head` that has parameters (native has none)",
        }.get(group, "leave the group out")
        raise RecipeError(f"A stage trains the group {group!r}, which has no parameters in this model: {remedy}.")


def set_mode(base: nn.Module, mode: bool) -> None:
    """Put what trains in the base into training mode and leave what is frozen in eval mode, so that its dropout is off.

    A module trains if a parameter under it does (gradient checkpointing looks at that), except where all that trains
    are LoRA layers right below it: such a module, an attention say, may itself drop out by ``self.training``. A module
    without parameters, such as dropout, trains if one of the parameters of the module around it trains that is not
    LoRA's; LoRA's own dropout goes with LoRA.
    """
    _set_mode(base, mode, inherited=False, inside_lora=False)


def _set_mode(module: nn.Module, mode: bool, *, inherited: bool, inside_lora: bool) -> None:
    named = list(module.named_parameters())
    own = [p for name, p in named if inside_lora or not is_lora(f".{name}")]
    dropout_on = any(p.requires_grad for p in own) if own else inherited
    lora_on = any(p.requires_grad for name, p in named if is_lora(f".{name}"))
    around_lora = any(is_lora(f".{name}") for child in module.children() for name, _ in child.named_children())
    module.training = mode and (dropout_on or (lora_on and not around_lora))
    for name, child in module.named_children():
        lora_child = name.startswith("lora_")
        _set_mode(child, mode, inherited=lora_on if lora_child else dropout_on, inside_lora=inside_lora or lora_child)
