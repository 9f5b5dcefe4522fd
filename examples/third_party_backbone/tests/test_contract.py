"""The one test that every adapter needs; ``pixelvla plugins check third_party`` runs the same."""

from pixelvla_third_party.plugin import pixelvla_backbones

from pixelvla_core.testing import check_backbone


def test_the_backbone_keeps_the_contract():
    report = check_backbone(pixelvla_backbones()[0])
    print(report)
    report.raise_for_failures()
