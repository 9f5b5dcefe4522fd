"""What the adapter relies on in LeRobot's pi0, checked when a model is wrapped.

Any object with this surface fits: LeRobot's `PI0Policy`, or a fork of it.
"""

from __future__ import annotations

import inspect
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet

from pixelvla_core.api import UserError

from .config import SAMPLERS

TESTED = ">=0.6,<0.7"
"""Versions of LeRobot with which the tests run."""

_VLM = "model.paligemma_with_expert"
SURFACE: dict[str, tuple[str, ...]] = {
    "prepare_state": (),
    "prepare_action": (),
    "config.chunk_size": (),
    "config.max_action_dim": (),
    "config.max_state_dim": (),
    "config.num_inference_steps": (),
    "config.image_resolution": (),
    "config.tokenizer_max_length": (),
    "config.compile_model": (),
    "model.embed_prefix": ("images", "img_masks", "lang_tokens", "lang_masks"),
    "model.forward": ("images", "img_masks", "lang_tokens", "lang_masks", "state", "actions", "noise", "time"),
    "model.sample_actions": ("images", "img_masks", "lang_tokens", "lang_masks", "state", "noise", "num_steps"),
    "model.denoise_step": (),
    "model.sample_noise": ("shape", "device"),
    "model.sample_time": ("bsize", "device"),
    f"{_VLM}.embed_image": ("image",),
    f"{_VLM}.embed_language_tokens": ("tokens",),
    f"{_VLM}.forward": ("attention_mask", "position_ids", "past_key_values", "inputs_embeds", "use_cache"),
    f"{_VLM}.paligemma.model.vision_tower.vision_model.encoder.layers": (),
    f"{_VLM}.paligemma.model.vision_tower.config.patch_size": (),
    f"{_VLM}.paligemma.model.multi_modal_projector": (),
    f"{_VLM}.paligemma.model.language_model.layers": (),
    f"{_VLM}.paligemma.model.language_model.config.hidden_size": (),
    f"{_VLM}.gemma_expert.model": (),
}
"""Path in the policy -> parameters that it must take."""

FAST_SURFACE: dict[str, tuple[str, ...]] = {
    "model.embed_suffix": ("state", "noisy_actions", "timestep"),
    "model.denoise_step": ("state", "prefix_pad_masks", "past_key_values", "x_t", "timestep"),
    "model.action_out_proj": (),
    f"{_VLM}.forward": ("adarms_cond",),
    f"{_VLM}.paligemma.model.language_model.config._attn_implementation": (),
    f"{_VLM}.gemma_expert.model.config._attn_implementation": (),
}
"""What the sampler `fast` relies on besides."""


def check_surface(policy: Any, sampler: str = "lerobot") -> None:
    """Refuse an object that lacks what the adapter relies on, and a model that was compiled before the splice.

    Raises:
        UserError: lists every attribute and parameter that misses, and the versions known to work; or there is no such
            sampler.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"There is no sampler {sampler!r} for pi0; there is {' and '.join(SAMPLERS)}.")
    wanted = [*SURFACE.items(), *(FAST_SURFACE.items() if sampler == "fast" else ())]
    missing = [line for path, parameters in wanted for line in _missing(policy, path, parameters)]
    if missing:
        raise UserError(
            f"{type(policy).__module__}.{type(policy).__name__} is not a pi0 that can be wrapped: it lacks "
            f"{', '.join(missing)}. Known to work is LeRobot {TESTED}; {_installed()} is installed. Install one of "
            "those, or give the object these attributes."
        )
    refuse_compiled(policy.config)


def refuse_compiled(config: Any) -> None:
    """Refuse a model whose methods are, or would be, compiled before the splice.

    Raises:
        UserError: says what to set.
    """
    if config.compile_model:
        raise UserError(
            "This pi0 has compile_model: true, so LeRobot compiles its methods before prompts can be spliced in, and "
            "the compiled code would not see them. Set compile_model to false in its config.json, or "
            "backbone.options.policy={compile_model: false}."
        )


def check_version() -> None:
    """Warn if LeRobot is one that the tests have never met."""
    found = _installed()
    if not SpecifierSet(TESTED, prereleases=True).contains(found.removeprefix("LeRobot ")):
        warnings.warn(f"{found} is installed; pixelvla-pi0 is tested with {TESTED} only.", stacklevel=2)


def _installed() -> str:
    try:
        return f"LeRobot {version('lerobot')}"
    except PackageNotFoundError:
        return "no LeRobot"


def _missing(policy: Any, path: str, parameters: tuple[str, ...]) -> list[str]:
    found = policy
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            return [path]
    if not parameters:
        return []
    taken = inspect.signature(found).parameters
    return [f"{path}({name})" for name in parameters if name not in taken]
