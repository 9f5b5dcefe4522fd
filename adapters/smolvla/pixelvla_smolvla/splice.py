"""LeRobot's own modules with one attribute changed for a call, so that none of their code is written again.

Shapes: B batch, S sequence, D width.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from pixelvla_core.api import Prefix


def variant[Module: nn.Module](module: Module, **attributes: Any) -> Module:
    """The same module with the same weights and submodules, some of its plain attributes changed.

    The module itself is not touched, so the variants live side by side, and hooks and LoRA count in all of them.
    """
    twin = copy.copy(module)
    twin.__dict__.update(attributes)
    return twin


def reader[Module: nn.Module](vlm_with_expert: Module) -> Module:
    """SmolVLMWithExpertModel that reads a prefix without an expert, with and without a cache.

    In the mode "cross_attn" its second half of the layers asks for the expert's tokens; in "self_attn" every layer is
    what both modes do to the prefix.
    """
    return variant(vlm_with_expert, attention_mode="self_attn")


def spliced[Module: nn.Module](model: Module, prefix: Prefix, steps: int | None = None) -> Module:
    """VLAFlowMatching that reads this prefix in place of the one that it would embed.

    Args:
        steps: Of its sampling; the checkpoint's own number if left out.
    """

    def embed_prefix(*_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
        return prefix.tokens_BSD, prefix.valid_BS, prefix.block_BS

    config: Any = copy.copy(model.config)
    if steps is not None:
        config.num_steps = steps
    return variant(model, embed_prefix=embed_prefix, config=config)


def text_and_state(model: Any, ids_BL: Tensor, valid_BL: Tensor, state_BX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, validity and block starts of what follows the images, by LeRobot's own ``embed_prefix``, not padded."""
    return variant(model, prefix_length=-1).embed_prefix([], [], ids_BL, valid_BL, state=state_BX)
