"""The visual prompt-aware encoder against SAM's own prompt encoder."""

from __future__ import annotations

import copy

import pytest
import torch

from pixelvla_core.errors import UserError
from pixelvla_core.geometry import Affine
from pixelvla_core.model.collate import collate_prompts
from pixelvla_core.model.config import PromptEncoderConfig
from pixelvla_core.model.position import FourierPosition
from pixelvla_core.model.prompt_encoder import TOKEN_TYPES, MaskShape, VisualPromptEncoder
from pixelvla_core.prompts import Box, Line, Mask, Point
from pixelvla_core.seam.batch import PromptBatch
from pixelvla_core.types import ActionSpec, BackboneSpec

SPEC = BackboneSpec(
    width=24,
    causal=True,
    image_size=64,
    grid=(4, 4),
    cameras=("front",),
    level_depth=4,
    level_width=8,
    action=ActionSpec(horizon=1, dim=7),
)
WIDTH, SIDE = 32, 64


pytestmark = pytest.mark.timeout(900)  # importing SAM takes minutes on a busy machine


@pytest.fixture(scope="module")
def sam():
    """transformers' own prompt encoder of SAM, small, with random weights."""
    from transformers import SamConfig
    from transformers.models.sam.modeling_sam import SamPromptEncoder

    torch.manual_seed(1)
    config = SamConfig(
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 16},
        vision_config={"num_pos_feats": WIDTH // 2, "scale": 1.0},
    )
    encoder = SamPromptEncoder(config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder.eval()


@pytest.fixture
def ours(sam) -> VisualPromptEncoder:
    """Our encoder with SAM's frequencies, type embeddings and convolutions."""
    torch.manual_seed(2)
    encoder = VisualPromptEncoder(PromptEncoderConfig(width=WIDTH), SPEC)
    encoder.position.frequencies_2F.copy_(sam.shared_embedding.positional_embedding.data)
    names = ("point_negative", "point_positive", "box_top_left", "box_bottom_right")
    for name, embedding in zip(names, sam.point_embed, strict=True):
        encoder.types.weight.data[TOKEN_TYPES.index(name)] = embedding.weight.data[0]
    return encoder


def test_the_position_is_sams(sam):
    coords = torch.rand(3, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    position = FourierPosition(WIDTH)
    position.frequencies_2F.copy_(sam.shared_embedding.positional_embedding.data)
    # In float32 both round angles of up to 30 radians; in float64 the formulas themselves are compared.
    assert (position(coords) - sam.shared_embedding(coords)).abs().max() < 5e-6
    exact = copy.deepcopy(sam.shared_embedding).double()(coords.double())
    assert (position(coords.double()) - exact).abs().max() < 1e-12
    assert (position(coords) - exact).abs().max() < 5e-6


def test_points_and_boxes_have_sams_features(sam, ours):
    """SAM takes pixels and adds half of one; ours are fractions of the image: (pixel + 1/2) / size."""
    points, labels = torch.tensor([[[[3.0, 10.0], [40.0, 63.0]]]]), torch.tensor([[[1, 0]]])
    boxes = torch.tensor([[[4.0, 8.0, 30.0, 50.0]]])
    theirs, _ = sam(points, labels, boxes, None)
    places = [((x + 0.5) / SIDE, (y + 0.5) / SIDE) for x, y in points[0, 0].tolist()]
    x0, y0, x1, y1 = ((v + 0.5) / SIDE for v in boxes[0, 0].tolist())
    prompts = [Point(*places[0]), Point(*places[1], positive=False), Box(x0, y0, x1, y1)]
    features_BKF = ours.features(collate_prompts([prompts], [Affine()], SPEC.grid))
    assert (features_BKF - theirs[0]).abs().max() < 5e-6


def test_the_mask_embedding_is_sams_averaged_under_the_mask(sam):
    shape = MaskShape(WIDTH)
    embed = sam.mask_embed
    for mine, theirs in ((shape.conv1, embed.conv1), (shape.conv2, embed.conv2), (shape.out, embed.conv3)):
        mine.load_state_dict(theirs.state_dict())
    shape.norm1.load_state_dict(embed.layer_norm1.state_dict())
    shape.norm2.load_state_dict(embed.layer_norm2.state_dict())
    masks = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    dense = embed(masks.flatten(0, 1)[:, None])
    weight = masks.flatten(0, 1).view(6, 1, 4, 4, 4, 4).mean((3, 5))
    expected = (dense * weight).sum((-2, -1)) / weight.sum((-2, -1))
    assert torch.allclose(shape(masks), expected.view(2, 3, WIDTH), atol=1e-5)


def example(prompts, other=()) -> PromptBatch:
    return collate_prompts([prompts, other], [Affine()] * 2, SPEC.grid)


def region():
    import numpy as np

    mask = np.zeros((32, 32), bool)
    mask[4:9, 20:28] = True
    return Mask(mask)


def test_every_kind_gives_its_tokens_and_padding_is_not_valid():
    encoder = VisualPromptEncoder(PromptEncoderConfig(width=WIDTH), SPEC)
    every = [Point(0.1, 0.1), Line(((0, 0), (0.5, 0.2), (1, 1))), Box(0.1, 0.1, 0.5, 0.5), region()]
    tokens, valid = encoder(example(every, [Point(0.5, 0.5)]))
    assert tokens.shape == (2, 1 + 3 + 2 + 1, SPEC.width)
    assert valid.sum(1).tolist() == [7, 1]
    assert torch.isfinite(tokens).all()
    alone, _ = encoder(collate_prompts([[Point(0.5, 0.5)]], [Affine()], SPEC.grid))
    assert torch.allclose(tokens[1, 0], alone[0, 0], atol=1e-6)


def test_sign_direction_and_kind_make_a_difference():
    encoder = VisualPromptEncoder(PromptEncoderConfig(width=WIDTH), SPEC)

    def token(prompt, column=0):
        return encoder(example([prompt]))[0][0, column]

    there = Line(((0.2, 0.2), (0.8, 0.8)))
    back = Line(((0.8, 0.8), (0.2, 0.2)))
    assert not torch.allclose(token(Point(0.2, 0.2)), token(Point(0.2, 0.2, positive=False)), atol=1e-3)
    assert not torch.allclose(token(there), token(back, 1), atol=1e-3)
    assert not torch.allclose(token(Point(0.2, 0.2)), token(Box(0.2, 0.2, 0.5, 0.5)), atol=1e-3)


def test_masks_of_the_same_centre_but_another_shape_differ():
    import numpy as np

    wide, high = np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    wide[14:18, 4:28] = True
    high[4:28, 14:18] = True
    encoder = VisualPromptEncoder(PromptEncoderConfig(width=WIDTH), SPEC)
    tokens, _ = encoder(example([Mask(wide), Mask(high)]))
    assert not torch.allclose(tokens[0, 0], tokens[0, 1], atol=1e-3)


def test_frequencies_are_the_same_everywhere_and_saved():
    first, second = (VisualPromptEncoder(PromptEncoderConfig(width=WIDTH, seed=5), SPEC) for _ in range(2))
    assert torch.equal(first.position.frequencies_2F, second.position.frequencies_2F)
    assert "position.frequencies_2F" in first.state_dict()
    assert not first.position.frequencies_2F.requires_grad
    other = VisualPromptEncoder(PromptEncoderConfig(width=WIDTH, seed=6), SPEC)
    assert not torch.equal(first.position.frequencies_2F, other.position.frequencies_2F)
    assert first.position.frequencies_2F[0, :2].tolist() == pytest.approx(FIRST_OF_SEED_5, abs=1e-6)


FIRST_OF_SEED_5 = [1.84233, 0.518887]  # so that a change of generator is noticed


def test_autocast_does_not_blur_neighbouring_places():
    position = FourierPosition(WIDTH)
    coords = torch.tensor([[0.900, 0.9], [0.901, 0.9]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = position(coords)
    assert torch.equal(found, position(coords))


def test_an_odd_width_is_refused():
    with pytest.raises(UserError, match="even"):
        VisualPromptEncoder(PromptEncoderConfig(width=31), SPEC)
