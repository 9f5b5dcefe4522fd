"""Two adaptions without which groundingdino-py 0.4 does not run with transformers 5.

Its BERT wrapper takes the method ``get_head_mask`` from transformers' BERT, which is gone (the package never gives it a
mask), and gives ``get_extended_attention_mask`` a device as third argument, which is now the type of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def adapted_bert() -> Iterator[None]:
    """Within it, the package wraps a BERT that has what its wrapper asks for."""
    from groundingdino.models.GroundingDINO import groundingdino as package

    wrapper = package.BertModelWarper
    package.BertModelWarper = lambda bert_model: wrapper(bert_model=adapt(bert_model))
    try:
        yield
    finally:
        package.BertModelWarper = wrapper


def adapt(bert: Any) -> Any:
    """Give a ``BertModel`` of transformers 5 the two methods as they were."""
    extended = bert.get_extended_attention_mask

    def get_extended_attention_mask(mask: Any, shape: Any, device: Any = None) -> Any:
        return extended(mask, shape)

    def get_head_mask(mask: None, layers: int) -> list[None]:
        return [None] * layers

    bert.get_extended_attention_mask = get_extended_attention_mask
    bert.get_head_mask = get_head_mask
    return bert
