"""LoRA on the base model, by peft: injected once, an identity until it is trained, merged only after a parity check.

The base's parameters keep their names except for ".base_layer", which peft puts before the last part of an adapted
layer's name; ``base_name`` takes it out again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pixelvla_core.errors import RecipeError, UserError

_WRAPPED = ".base_layer."


def is_lora(name: str) -> bool:
    """Whether a parameter belongs to LoRA rather than to the base."""
    return ".lora_" in name


def base_name(name: str) -> str:
    """The base's own name of one of its parameters, whether its layer is adapted or not."""
    return name.replace(_WRAPPED, ".")


def base_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The base's state dict under its own names, without LoRA's tensors."""
    return {base_name(name): tensor for name, tensor in module.state_dict().items() if not is_lora(name)}


def inject(
    module: nn.Module, patterns: Iterable[str], *, rank: int, alpha: float, dropout: float = 0.0, seed: int = 0
) -> list[str]:
    """Put LoRA on every linear layer whose weight's name one of the patterns full-matches.

    B starts at zero, so the model computes exactly what it did before. A and B are float32 whatever the base is.

    Args:
        module: The base model; changed in place. Its own parameters no longer require gradients.
        patterns: Regular expressions over parameter names, such as ``spec.groups["llm"]``.
        rank: r. alpha: The update is scaled by alpha / r. dropout: On LoRA's input, while training.
        seed: Of A's random start.

    Returns:
        The names of the adapted layers.

    Raises:
        RecipeError: no linear layer matches, or the base is adapted already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if any(is_lora(name) for name, _ in module.named_parameters()):
        raise RecipeError(
            "The base model has LoRA layers already; they are injected once, stages only train or freeze them."
        )
    targets = linear_layers(module, patterns)
    if not targets:
        raise RecipeError(
            f"LoRA shall adapt the linear layers under {sorted(patterns)}, but the base has none there. "
            "Choose other groups in `lora.groups`, or set `lora.rank=0`."
        )
    # peft's annotation says int; alpha only scales, as alpha / rank.
    scale: Any = alpha
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=_exactly(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, module)
    for name, parameter in module.named_parameters():
        if is_lora(name):
            # peft takes the base's type; steps of an optimizer would drown in bfloat16's rounding.
            parameter.data = parameter.data.float()
    return targets


def linear_layers(module: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Names of the linear layers whose weight is in one of the groups."""
    compiled = [re.compile(pattern) for pattern in patterns]
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return [name for name in linear if any(pattern.fullmatch(f"{name}.weight") for pattern in compiled)]


def _exactly(targets: list[str]) -> str:
    """A regular expression for just these names; peft would match a list of names by their ends."""
    return "|".join(map(re.escape, targets))


def layers(module: nn.Module) -> dict[str, Any]:
    """The adapted layers by name."""
    if not any(is_lora(name) for name, _ in module.named_parameters()):
        return {}  # importing peft takes seconds
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}


def merge(module: nn.Module, probe: Callable[[], Tensor], *, tolerance: float = 1e-3) -> float:
    """Add LoRA's update to the base's weights, and take it out again if that changes what the model computes.

    Whatever is raised, by the probe too, the base is then as it was.

    Args:
        probe: Computes an output of the model, the same at every call (eval mode, fixed input).
        tolerance: Largest difference allowed, relative to the largest output.

    Returns:
        The largest difference measured, relative to the largest output.

    Raises:
        UserError: the base is quantised, or the outputs differ by more than the tolerance.
    """
    found = layers(module)
    if not all(layer.get_base_layer().weight.is_floating_point() for layer in found.values()):
        raise UserError("LoRA cannot be merged into quantised base weights. Load the base without `quantize`.")
    originals = {name: layer.get_base_layer().weight.detach().clone() for name, layer in found.items()}
    try:
        difference = _merged(found, probe)
        if not difference <= tolerance:
            raise UserError(
                f"Merging LoRA changes the model's output by {difference:.2e} of its size, more than {tolerance:.0e}; "
                "nothing was merged. Merge in a wider type (dtype=float32), or keep LoRA beside the base."
            )
    except BaseException:
        _restore(found, originals)
        raise
    return difference


@torch.no_grad()
def _merged(found: dict[str, Any], probe: Callable[[], Tensor]) -> float:
    """Merge, and return how much that changes what the probe computes, relative to its largest output."""
    before = probe().float()
    for layer in found.values():
        layer.merge(safe_merge=True)
    after = probe().float()
    return ((after - before).abs().max() / before.abs().max().clamp(min=1e-12)).item()


def _restore(found: dict[str, Any], originals: dict[str, Tensor]) -> None:
    """Take the update out and put the original bits back, which subtracting alone would not give."""
    for name, layer in found.items():
        if layer.merged:
            layer.unmerge()
        layer.get_base_layer().weight.data.copy_(originals[name])


@contextmanager
def detached(module: nn.Module) -> Iterator[nn.Module]:
    """Put the base's own layers back in place for a while, so that it can be saved in its own layout.

    Whatever happens meanwhile, LoRA is then where it was.
    """
    found = layers(module)
    try:
        for name, layer in found.items():
            module.set_submodule(name, layer.get_base_layer())
        yield module
    finally:
        for name, layer in found.items():
            module.set_submodule(name, layer)


def remove(module: nn.Module) -> None:
    """Take LoRA out for good; the base is then as it was before ``inject``, or merged if it was merged."""
    for name, layer in layers(module).items():
        module.set_submodule(name, layer.get_base_layer())
    if hasattr(module, "peft_config"):
        del module.peft_config
