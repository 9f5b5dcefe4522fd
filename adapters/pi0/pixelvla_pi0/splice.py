"""Where tokens enter LeRobot's pi0, and where block features leave it.

Shapes: B batch, S prefix length, D width of the language model, N patches, C width of the vision tower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pixelvla_core.api import Prefix, level_blocks


@contextmanager
def replaced(owner: Any, **functions: Callable) -> Iterator[None]:
    """Give one object other functions for a while: a module of Python its globals, a network its methods.

    The network's class, and other objects of it, keep theirs.
    """
    before = {name: vars(owner)[name] for name in functions if name in vars(owner)}
    for name, function in functions.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        for name in functions:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


@contextmanager
def spliced(core: Any, prefix: Prefix) -> Iterator[None]:
    """Let LeRobot's `forward` and `sample_actions` read this prefix in place of what they would embed themselves."""

    def embed_prefix(*_: object, **__: object) -> tuple[Tensor, Tensor, Tensor]:
        return prefix.tokens_BSD, prefix.valid_BS, prefix.block_BS

    with replaced(core, embed_prefix=embed_prefix):
        yield


def embedded(core: Any, images: Sequence[Tensor], tokens: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LeRobot's own `embed_prefix` over image tokens that the vision pass has made before.

    Args:
        images: Per camera float[B, N, D], as `embed_image` returned them.
        tokens, valid: Ids and mask of the text.
    """
    shown = [image.new_ones(len(image)).bool() for image in images]
    with replaced(core.paligemma_with_expert, embed_image=lambda image: image):
        return core.embed_prefix(list(images), shown, tokens, valid)


@contextmanager
def captured(blocks: nn.ModuleList, levels: Sequence[float]) -> Iterator[list[Tensor]]:
    """Collect what blocks at these depth fractions put out while the context is open; in the order of ``levels``.

    The list is filled when the context closes: float[B, N, C] per level.
    """
    kept: dict[int, Tensor] = {}
    found: list[Tensor] = []
    wanted = level_blocks(levels, len(blocks))

    def keep(index: int) -> Callable:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            kept[index] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [blocks[index].register_forward_hook(keep(index)) for index in sorted(set(wanted))]
    try:
        yield found
        found.extend(kept[index] for index in wanted)
    finally:
        for handle in handles:
            handle.remove()
