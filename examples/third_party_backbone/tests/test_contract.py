"""The one test that every adapter needs (``pixelvla plugins check third_party`` runs the same), and one of the base."""

import torch
from pixelvla_third_party.model import rotary_angles, rotate
from pixelvla_third_party.plugin import pixelvla_backbones

from pixelvla_core.testing import check_backbone


def test_the_backbone_keeps_the_contract():
    report = check_backbone(pixelvla_backbones()[0])
    print(report)
    report.raise_for_failures()


def test_bfloat16_tells_neighbours_apart_far_into_the_sequence():
    """Turning depends on the distance alone, wherever the two stand; angles in bfloat16 would round 800 to 801 away."""
    query, key = torch.randn(2, 1, 1, 1, 12, generator=torch.Generator().manual_seed(0)).bfloat16()

    def score(at: int) -> torch.Tensor:
        turned = [rotate(x, rotary_angles(torch.tensor([[at + i]]), 12)) for i, x in enumerate((query, key))]
        return (turned[0] * turned[1]).float().sum()

    assert abs(score(801) - score(0)) < 0.05 * (query.float().norm() * key.float().norm())
