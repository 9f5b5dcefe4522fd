"""What the adapter relies on in LeRobot's SmolVLA, checked when a model is wrapped."""

from __future__ import annotations

import inspect
import warnings
from importlib.metadata import version
from typing import Any

from packaging.specifiers import SpecifierSet

from pixelvla_core.api import UserError

TESTED = ">=0.6,<0.7"
"""Versions of LeRobot with which the tests run."""

_INNER = "model.vlm_with_expert"
SURFACE: dict[str, tuple[str, ...]] = {
    "prepare_images": ("batch",),
    "prepare_action": ("batch",),
    "model.embed_prefix": ("images", "img_masks", "lang_tokens", "lang_masks", "state"),
    "model.forward": ("images", "img_masks", "lang_tokens", "lang_masks", "state", "actions", "noise", "time"),
    "model.sample_actions": ("images", "img_masks", "lang_tokens", "lang_masks", "state", "noise"),
    "model.sample_noise": ("shape", "device"),
    "model.sample_time": ("bsize", "device"),
    "model.prefix_length": (),
    "model.add_image_special_tokens": (),
    "model.global_image_start_token": (),
    "model.image_end_token": (),
    f"{_INNER}.attention_mode": (),
    f"{_INNER}.embed_image": ("image",),
    f"{_INNER}.embed_language_tokens": ("tokens",),
    f"{_INNER}.forward": ("attention_mask", "position_ids", "past_key_values", "inputs_embeds", "use_cache"),
    f"{_INNER}.processor.tokenizer": (),
    f"{_INNER}.vlm.model.vision_model.encoder.layers": (),
    f"{_INNER}.vlm.model.connector.scale_factor": (),
    f"{_INNER}.vlm.model.text_model.layers": (),
    f"{_INNER}.lm_expert": (),
}
"""Path in the policy -> parameters that it must take."""


def check_surface(policy: Any) -> None:
    """Refuse a policy that lacks what the adapter relies on; warn of a LeRobot that the tests have never met.

    Raises:
        UserError: lists every attribute and parameter that misses, and the versions known to work.
    """
    found = version("lerobot")
    missing = [line for path, parameters in SURFACE.items() for line in _missing(policy, path, parameters)]
    if missing:
        raise UserError(
            f"{type(policy).__module__}.{type(policy).__name__} is not a SmolVLA that can be wrapped: it lacks "
            f"{', '.join(missing)}. Known to work is LeRobot {TESTED}; LeRobot {found} is installed. Install one of "
            "those."
        )
    if not SpecifierSet(TESTED, prereleases=True).contains(found):
        warnings.warn(f"LeRobot {found} is installed; pixelvla-smolvla is tested with {TESTED} only.", stacklevel=3)


def _missing(policy: Any, path: str, parameters: tuple[str, ...]) -> list[str]:
    found = policy
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            return [path]
    taken = inspect.signature(found).parameters if parameters else {}
    return [f"{path}({name})" for name in parameters if name not in taken]
