"""Prefix: spans, insertion, positions and who sees whom.

Shapes: B batch, S sequence, K inserted tokens, D width.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.seam.prefix import Past, Prefix

quick = settings(deadline=None, max_examples=60)


def numbered(rows: list[list[int]], names: tuple[str, ...], start: float = 0.0) -> Prefix:
    """A prefix whose tokens are numbers; ``rows`` gives each column's span, -1 for padding in the last span."""
    span_BS = torch.tensor(rows)
    B, S = span_BS.shape
    tokens_BSD = torch.arange(start, start + B * S).view(B, S, 1)
    valid_BS = span_BS >= 0
    block_BS = torch.zeros(B, S, dtype=torch.bool)
    block_BS[:, 0] = True
    return Prefix(tokens_BSD, valid_BS, block_BS, span_BS.clamp(min=-1).where(valid_BS, len(names) - 1), names)


@st.composite
def ragged(draw):
    """Three spans whose ends differ from row to row, each with at least one token, padded on the right."""
    lengths = draw(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=4))
    S = max(map(sum, lengths))
    rows = [[i for i, n in enumerate(row) for _ in range(n)] + [-1] * (S - sum(row)) for row in lengths]
    return numbered(rows, ("bos", "image", "text"))


@quick
@given(ragged(), st.data())
def test_the_last_hidden_state_is_that_of_the_last_valid_token(prefix, data):
    valid = data.draw(st.lists(st.booleans(), min_size=prefix.valid_BS.numel(), max_size=prefix.valid_BS.numel()))
    valid_BS = torch.tensor(valid).view_as(prefix.valid_BS)
    valid_BS[:, 0] = True
    prefix = replace(prefix, valid_BS=valid_BS)
    wanted = [hidden[row].max() for hidden, row in zip(prefix.tokens_BSD[..., 0], valid_BS, strict=True)]
    assert prefix.last(prefix.tokens_BSD)[:, 0].tolist() == wanted  # tokens are numbered in order


@quick
@given(ragged(), st.integers(0, 4), st.sampled_from(["bos", "image"]))
def test_insert_puts_the_span_right_behind_another_in_every_row(prefix, K, after):
    B = len(prefix.valid_BS)
    new_BKD = -1.0 - torch.arange(B * K).view(B, K, 1).float()
    grown = prefix.insert("new", new_BKD, after=after)
    for b in range(B):
        end = int((prefix.span_BS[b] == prefix.names.index(after)).nonzero().max()) + 1
        old = prefix.tokens_BSD[b, :, 0].tolist()
        if K:
            assert grown.tokens_BSD[b, :, 0].tolist() == old[:end] + new_BKD[b, :, 0].tolist() + old[end:]
    kept_BS = grown.span_BS != grown.names.index("new")
    for name in ("tokens_BSD", "valid_BS", "block_BS", "span_BS"):
        was, now = getattr(prefix, name), getattr(grown, name)
        assert torch.equal(now[kept_BS], was.flatten(0, 1)), name
    assert torch.equal(grown.read("new", grown.tokens_BSD), new_BKD)


def test_a_row_without_the_span_to_go_behind_is_refused():
    prefix = numbered([[0, 1, 2], [0, 2, 2]], ("bos", "image", "text"))
    new_BKD = torch.ones(2, 2, 1)
    with pytest.raises(ValueError, match=r"'new' shall go behind the span 'image', of which the rows \[1\]"):
        prefix.insert("new", new_BKD, after="image")
    # Padding may go anywhere, so a row that has nothing to insert needs no such span.
    valid_BK = torch.tensor([[True, True], [False, False]])
    grown = prefix.insert("new", new_BKD, valid_BK, after="image")
    assert grown.span_BS[0].tolist() == [0, 1, 3, 3, 2]
    assert grown.positions_BS()[1][grown.valid_BS[1]].tolist() == [0, 1, 2]


@quick
@given(ragged(), st.data())
def test_positions_count_valid_tokens_only(prefix, data):
    B = len(prefix.valid_BS)
    K = data.draw(st.integers(1, 4))
    valid_BK = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=K, max_size=K), min_size=B, max_size=B))
    )
    grown = prefix.insert("new", torch.zeros(B, K, 1), valid_BK, after="image")
    for valid_S, position_S in zip(grown.valid_BS.tolist(), grown.positions_BS().tolist(), strict=True):
        taken = [position for position, valid in zip(position_S, valid_S, strict=True) if valid]
        assert taken == list(range(len(taken)))
    shifted = grown.positions_BS(torch.full((B,), 7))
    assert torch.equal(shifted, grown.positions_BS() + 7)


@quick
@given(ragged(), st.booleans())
def test_nobody_attends_to_invalid_tokens_and_no_row_is_empty(prefix, causal):
    mask_BSS = prefix.mask_BSS(causal)
    S = mask_BSS.shape[1]
    assert mask_BSS.any(-1).all()
    others_BSS = mask_BSS & ~torch.eye(S, dtype=torch.bool)
    assert not (others_BSS & ~prefix.valid_BS[:, None, :]).any()
    assert not (others_BSS & ~prefix.valid_BS[:, :, None]).any()
    seen_BSS = prefix.valid_BS[:, :, None] & prefix.valid_BS[:, None, :]
    if causal:
        assert torch.equal(mask_BSS & seen_BSS, seen_BSS.tril())
    else:
        assert torch.equal(mask_BSS & seen_BSS, seen_BSS)  # one block: everything sees everything


@quick
@given(ragged(), st.integers(1, 3), st.booleans())
def test_a_new_block_sees_all_and_is_not_seen_before(prefix, K, causal):
    B, S = prefix.valid_BS.shape
    grown = prefix.insert("query", torch.zeros(B, K, 1), after="", new_block=True)
    mask_BSS = grown.mask_BSS(causal)
    assert torch.equal(mask_BSS[:, :S, :S], prefix.mask_BSS(causal))
    assert not mask_BSS[:, :S, S:].any()
    assert torch.equal(mask_BSS[:, S:, :S], prefix.valid_BS[:, None].expand(-1, K, -1))
    among = torch.ones(K, K, dtype=torch.bool)
    assert (mask_BSS[:, S:, S:] == (among.tril() if causal else among)).all()
    past = Past(((torch.zeros(B, 1, S, 1),) * 2,), prefix.valid_BS)
    alone = Prefix.of("query", torch.zeros(B, K, 1))
    assert torch.equal(past.mask_BKP(alone, causal), mask_BSS[:, S:])
    assert torch.equal(alone.positions_BS(past.length_B), grown.positions_BS()[:, S:])


def test_insert_casts_to_the_type_of_the_prefix():
    prefix = Prefix.of("bos", torch.zeros(1, 1, 2, dtype=torch.bfloat16))
    assert prefix.insert("new", torch.ones(1, 1, 2), after="bos").tokens_BSD.dtype == torch.bfloat16


def test_gradient_reaches_inserted_tokens_in_order():
    tokens = torch.zeros(2, 3, 1, requires_grad=True)
    prefix = numbered([[0, 1, 1], [0, 0, 1]], ("bos", "text")).insert("new", tokens, after="bos")
    weights = torch.arange(12.0).view(2, 6, 1)
    (prefix.tokens_BSD * weights).sum().backward()
    assert tokens.grad[..., 0].tolist() == [[1, 2, 3], [8, 9, 10]]


def test_names_must_differ_and_exist():
    prefix = numbered([[0, 1]], ("bos", "text"))
    with pytest.raises(ValueError, match="differ"):
        prefix.insert("text", torch.zeros(1, 1, 1), after="bos")
    with pytest.raises(ValueError, match="no span 'image'"):
        prefix.insert("new", torch.zeros(1, 1, 1), after="image")
