"""8-bit and 4-bit storage of the language model's linear layers, by bitsandbytes (optional)."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from torch import nn

from pixelvla_core.api import UserError

if TYPE_CHECKING:
    from transformers import LlamaModel

KINDS = ("8bit", "4bit")


def quantize_blocks(llama: LlamaModel, kind: str) -> None:
    """Replace every linear layer of the Llama's blocks; the weights are packed when the model moves to its device.

    Embeddings, norms, lm_head, vision towers and projector keep their type.

    Raises:
        UserError: `kind` is unknown, or bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"quantize is {kind!r}; expected {' or '.join(map(repr, KINDS))}, or None.")
    library = _bitsandbytes()
    for block in llama.layers:
        for part in block.children():
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(part, name, _packed(library, layer, kind))


def _bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ImportError as error:
        raise UserError(
            f"8-bit and 4-bit weights need bitsandbytes, which cannot be imported ({error}). Install it with "
            "`pip install 'bitsandbytes>=0.46'`, or load without `quantize`."
        ) from error
    return bitsandbytes


def _packed(library: ModuleType, layer: nn.Linear, kind: str) -> nn.Module:
    data, bias = layer.weight.data, layer.bias is not None
    size = (layer.in_features, layer.out_features, bias)
    if kind == "4bit":
        new = library.nn.Linear4bit(*size, compute_dtype=data.dtype, quant_type="nf4", device="meta")
        new.weight = library.nn.Params4bit(data, requires_grad=False, quant_type="nf4", module=new)
    else:
        new = library.nn.Linear8bitLt(*size, has_fp16_weights=False, device="meta")
        new.weight = library.nn.Int8Params(data, requires_grad=False, has_fp16_weights=False)
    new.bias = layer.bias
    return new
