"""The multiscale pixel-aware encoder against Eq. 3 written out by hand.

Shapes: B batch, M masks, N patches, T image tokens, C feature width, D model width.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelvla_core.errors import UserError
from pixelvla_core.model.config import PixelEncoderConfig
from pixelvla_core.model.pixel_encoder import MultiscalePixelEncoder
from pixelvla_core.seam.batch import MaskBatch
from pixelvla_core.types import ActionSpec, BackboneSpec

B, M, C, D, GRID = 2, 3, 6, 10, (4, 5)
SPEC = BackboneSpec(
    width=D,
    causal=True,
    image_size=80,
    grid=GRID,
    cameras=("front",),
    level_depth=8,
    level_width=C,
    action=ActionSpec(horizon=1, dim=7),
)
LEVELS = [0.25, 0.5, 1.0]
EQ_3 = {"norm": False, "position": False, "anchor": False}
TOKENS = torch.randn(B, GRID[0] * GRID[1], D, generator=torch.Generator().manual_seed(9))


def encoder(**options) -> MultiscalePixelEncoder:
    torch.manual_seed(0)
    return MultiscalePixelEncoder(PixelEncoderConfig(levels=LEVELS, **options), SPEC)


def inputs(seed: int = 0, empty: tuple[tuple[int, int], ...] = ()):
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(B, GRID[0] * GRID[1], C, generator=generator) for _ in LEVELS]
    masks = (torch.rand(B, M, 16, 20, generator=generator) < 0.3).float()
    for b, m in empty:
        masks[b, m] = 0
    return levels, MaskBatch(masks_BMHW=masks, valid_BM=torch.ones(B, M, dtype=torch.bool))


def test_it_is_eq_3():
    """Without the three additions: f_i = sum(p f) / sum(p) per mask, E_p = MLP(sum_i Linear_i(f_i))."""
    model = encoder(**EQ_3)
    levels, masks = inputs()
    tokens_BMD, valid_BM = model(levels, masks, TOKENS)
    assert valid_BM.all()
    for b in range(B):
        for m in range(M):
            p_N = [
                masks.masks_BMHW[b, m, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for r in range(4) for c in range(5)
            ]
            total = 0
            for feature_BNC, linear in zip(levels, model.linears, strict=True):
                mean = sum(p * feature for p, feature in zip(p_N, feature_BNC[b], strict=True)) / sum(p_N)
                total = total + linear(mean)
            assert torch.allclose(tokens_BMD[b, m], model.mlp(total), atol=1e-5)


def test_a_mask_over_one_patch_reads_that_patch_alone():
    model = encoder(**EQ_3)
    levels, masks = inputs()
    masks.masks_BMHW.zero_()
    masks.masks_BMHW[0, 0, 9, 13] = 1  # one cell of patch row 2, column 3
    token = model(levels, masks, TOKENS)[0][0, 0]
    expected = model.mlp(sum(linear(level[0, 2 * 5 + 3]) for linear, level in zip(model.linears, levels, strict=True)))
    assert torch.allclose(token, expected, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(M)), st.integers(0, 5))
def test_masks_do_not_influence_each_other(order, seed):
    model = encoder()
    levels, masks = inputs(seed)
    tokens = model(levels, masks, TOKENS)[0]
    shuffled = MaskBatch(masks_BMHW=masks.masks_BMHW[:, order], valid_BM=masks.valid_BM)
    assert torch.allclose(model(levels, shuffled, TOKENS)[0], tokens[:, order], atol=1e-6)


def test_an_empty_mask_is_not_valid_and_divides_by_nothing():
    model = encoder()
    levels, masks = inputs(empty=((0, 1), (1, 0), (1, 1), (1, 2)))
    levels = [level.requires_grad_() for level in levels]
    tokens, valid = model(levels, masks, TOKENS)
    assert valid.tolist() == [[True, False, True], [False, False, False]]
    assert torch.isfinite(tokens).all()
    tokens.square().sum().backward()
    for gradient in [*(level.grad for level in levels), *(p.grad for p in model.parameters())]:
        assert torch.isfinite(gradient).all()
    assert not levels[0].grad[1].any()  # a row of empty masks reads no feature


def test_padding_stays_padding():
    levels, masks = inputs()
    valid = torch.tensor([[True, True, False], [True, False, False]])
    masks = MaskBatch(masks_BMHW=masks.masks_BMHW * valid[..., None, None], valid_BM=valid)
    assert torch.equal(encoder()(levels, masks, TOKENS)[1], valid)


def test_the_mean_is_taken_in_float32_under_autocast():
    model = encoder(**EQ_3)
    levels, masks = inputs()
    levels = [100 + level for level in levels]  # bfloat16 keeps 8 bits: the mean of these would lose all variation
    exact = [model.patch_weights(masks.masks_BMHW)[0] @ level for level in levels]
    seen = []
    for linear in model.linears:
        linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(levels, masks, TOKENS)
    for found, wanted in zip(seen, exact, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, wanted, atol=1e-4)


def test_bfloat16_features_are_read_too():
    levels, masks = inputs()
    tokens, _ = encoder()([level.bfloat16() for level in levels], masks, TOKENS)
    assert torch.allclose(tokens, encoder()(levels, masks, TOKENS)[0], atol=0.05)


def test_with_the_norm_a_loud_level_does_not_drown_a_quiet_one():
    """The share of the sum's variance that the first level explains when the last one is 50 times larger."""
    shares = {}
    for norm in (False, True):
        model = encoder(**EQ_3 | {"norm": norm})
        sums = []
        model.mlp.register_forward_pre_hook(lambda _, args, sums=sums: sums.append(args[0]))
        levels, masks = inputs()
        levels[-1] = 50 * levels[-1]
        model(levels, masks, TOKENS)
        model([torch.zeros_like(levels[0]), *levels[1:]], masks, TOKENS)
        shares[norm] = ((sums[0] - sums[1]).norm() / sums[0].norm()).item()
    assert shares[False] < 0.1
    assert shares[True] > 0.3


def test_the_position_tells_equal_objects_apart():
    """Two masks over patches with the same features give one token in Eq. 3, and two with the position."""
    levels = [torch.ones(B, 20, C) for _ in LEVELS]
    masks = torch.zeros(B, 2, 16, 20)
    masks[:, 0, 2:4, 2:4] = masks[:, 1, 12:14, 15:17] = 1
    batch = MaskBatch(masks_BMHW=masks, valid_BM=torch.ones(B, 2, dtype=torch.bool))
    for position, same in ((False, True), (True, False)):
        tokens = encoder(position=position, anchor=False)(levels, batch, TOKENS)[0]
        assert torch.allclose(tokens[:, 0], tokens[:, 1], atol=1e-5) == same


@pytest.mark.parametrize("levels", [[], [0.0, 1.0], [1.5]])
def test_levels_out_of_range_are_refused(levels):
    with pytest.raises(UserError, match="depth fraction"):
        MultiscalePixelEncoder(PixelEncoderConfig(levels=levels), SPEC)


def test_the_anchor_is_the_mean_of_the_image_tokens_under_the_mask():
    levels, masks = inputs()
    model = encoder()
    plain = encoder(anchor=False)
    weights = model.patch_weights(masks.masks_BMHW)[0]
    added = model(levels, masks, TOKENS)[0] - plain(levels, masks, TOKENS)[0]
    assert torch.allclose(added, weights @ TOKENS, atol=1e-5)


def test_a_token_that_stands_for_a_square_of_patches_is_anchored_by_their_sum():
    spec = replace(SPEC, grid=(4, 6))
    model = MultiscalePixelEncoder(PixelEncoderConfig(levels=LEVELS), spec)
    masks = torch.zeros(1, 1, 16, 24)
    masks[0, 0, 4:12, 8:16] = 1  # patches in rows 1 and 2, columns 2 and 3: half of the tokens (0, 1) and (1, 1)
    weights = model.token_weights(model.patch_weights(masks)[0], tokens=6)
    assert weights[0, 0].tolist() == [0, 0.5, 0, 0, 0.5, 0]


@pytest.mark.parametrize("tokens", [7, 10, 5, 40])
def test_tokens_that_stand_for_no_square_are_refused(tokens):
    levels, masks = inputs()
    with pytest.raises(UserError, match=f"{tokens} image tokens of 4 x 5 patches.*anchor=false"):
        encoder()(levels, masks, torch.zeros(B, tokens, D))
    assert encoder(anchor=False)(levels, masks, torch.zeros(B, tokens, D))[1].all()
