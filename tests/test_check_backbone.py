"""check_backbone passes a sound adapter and names the clause that a broken one breaks.

Each broken adapter below is the sound one with a single, typical mistake.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pixelvla_third_party.adapter import ThirdPartyBackbone, build
from pixelvla_third_party.config import ThirdPartyConfig
from pixelvla_third_party.plugin import pixelvla_backbones

from pixelvla_core.errors import PluginError, UserError
from pixelvla_core.seam.prefix import Prefix
from pixelvla_core.testing import Check, Report, check_backbone, example_samples
from pixelvla_core.testing.check import CLAUSES, run_clause
from pixelvla_core.testing.model_clauses import saved
from pixelvla_core.testing.seam_clauses import groups as groups_clause
from pixelvla_core.testing.subject import ClauseError, Subject


@pytest.mark.parametrize("options", [{}, {"causal": False, "cameras": ["front", "wrist"], "horizon": 3}])
def test_the_example_keeps_every_clause(options):
    report = check_backbone(pixelvla_backbones()[0], options=options)
    assert report.ok, str(report)
    assert [check.name for check in report.checks] == [clause.__name__ for clause in CLAUSES]
    report.raise_for_failures()


def test_it_leaves_the_adapter_as_it_was():
    adapter = build(ThirdPartyConfig(), weights=None)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in adapter.module.named_parameters()}
    check_backbone(adapter)
    after = dict(adapter.module.named_parameters())
    assert list(after) == list(before)
    for name, (value, trained) in before.items():
        assert torch.equal(after[name], value)
        assert after[name].requires_grad == trained
        assert after[name].grad is None


class PlainPositions(ThirdPartyBackbone):
    """Positions 0 .. S-1, as most models have them by default."""

    def hidden(self, prefix, past=None):
        every = replace(prefix, valid_BS=torch.ones_like(prefix.valid_BS))
        positions = every.positions_BS(None if past is None else past.length_B)
        mask = prefix.mask_BSS(True) if past is None else past.mask_BKP(prefix, True)
        return self.module.transform(prefix.tokens_BSD, positions, mask, past and past.layers)[0]


class NoMask(ThirdPartyBackbone):
    """Forgets that some tokens are not valid."""

    def hidden(self, prefix, past=None):
        return super().hidden(replace(prefix, valid_BS=torch.ones_like(prefix.valid_BS)), past)


class SeesTheFuture(ThirdPartyBackbone):
    """Everything attends to everything, also to blocks that come later."""

    def hidden(self, prefix, past=None):
        if past is not None:
            return super().hidden(prefix, past)
        seen = prefix.valid_BS[:, :, None] & prefix.valid_BS[:, None, :]
        mask = seen | torch.eye(seen.shape[1], dtype=torch.bool)
        return self.module.transform(prefix.tokens_BSD, prefix.positions_BS(), mask)[0]


class SecondPass(ThirdPartyBackbone):
    """Runs the tower again for the levels."""

    def features(self, batch, levels):
        tokens = super().features(batch, ()).tokens
        return replace(super().features(batch, levels), tokens=tokens) if levels else super().features(batch, ())


class WrongPast(ThirdPartyBackbone):
    """Starts new tokens at position 0 after a past."""

    def hidden(self, prefix, past=None):
        if past is None:
            return super().hidden(prefix)
        mask = past.mask_BKP(prefix, True)
        return self.module.transform(prefix.tokens_BSD, prefix.positions_BS(), mask, past.layers)[0]


class Squashes(ThirdPartyBackbone):
    """Says that the image is squashed while it is padded."""

    def collate(self, samples, *, train):
        from pixelvla_core.geometry import Affine

        batch = super().collate(samples, train=train)
        return replace(batch, geometry={name: (Affine(),) * len(maps) for name, maps in batch.geometry.items()})


class Detached(ThirdPartyBackbone):
    """Runs the vision tower without autograd, always."""

    @torch.no_grad()
    def features(self, batch, levels):
        return super().features(batch, levels)


class FrozenTransformer(ThirdPartyBackbone):
    """Detaches what it is given."""

    def hidden(self, prefix, past=None):
        return super().hidden(replace(prefix, tokens_BSD=prefix.tokens_BSD.detach()), past)


class Dropout(ThirdPartyBackbone):
    """Stays in training mode whatever it is told."""

    def hidden(self, prefix, past=None):
        return super().hidden(prefix, past) + 1e-3 * torch.randn(prefix.tokens_BSD.shape)


class LastColumn(ThirdPartyBackbone):
    """Reads the action from the last column, which is padding in shorter rows."""

    def native_actions(self, prefix, batch):
        return self.module.action(self.hidden(prefix)[:, -1]).unflatten(-1, (1, 7))


class NoInstruction(ThirdPartyBackbone):
    """Has one span for all of its text."""

    def prefix(self, batch, features):
        built = super().prefix(batch, features)
        bos_and_image = len(built.names) - 3
        return Prefix(
            built.tokens_BSD,
            built.valid_BS,
            built.block_BS,
            built.span_BS.clamp(max=bos_and_image),
            (*built.names[:bos_and_image], "text"),
        )


class ShortInstruction(ThirdPartyBackbone):
    """Counts only the first ten characters of the instruction as such."""

    def prefix(self, batch, features):
        built = super().prefix(batch, features)
        start = built.names.index("instruction")
        count_BS = (built.span_BS == start).cumsum(1)
        late_BS = (built.span_BS == start) & (count_BS > 10)
        return replace(built, span_BS=torch.where(late_BS, start + 1, built.span_BS))


class OneLevel(ThirdPartyBackbone):
    """Gives the last block at every depth."""

    def features(self, batch, levels):
        found = super().features(batch, levels)
        return replace(
            found, levels={name: (kept[-1],) * len(kept) if kept else kept for name, kept in found.levels.items()}
        )


class LosesATensor(ThirdPartyBackbone):
    """Saves a projector of zeros."""

    def save_base(self, folder):
        weight = self.module.projector.weight.data.clone()
        self.module.projector.weight.data.zero_()
        super().save_base(folder)
        self.module.projector.weight.data.copy_(weight)


BROKEN = {
    PlainPositions: {"invalid_tokens"},
    NoMask: {"invalid_tokens", "one_by_one"},
    SeesTheFuture: {"later_tokens", "past"},
    SecondPass: {"one_vision_pass"},
    WrongPast: {"past"},
    Squashes: {"geometry"},
    Detached: {"gradients"},
    FrozenTransformer: {"seen_tokens", "gradients"},
    Dropout: {"repeatable"},
    LastColumn: {"native"},
    NoInstruction: {"prefix"},
    ShortInstruction: {"instruction"},
    OneLevel: {"levels"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_mistake_is_found_by_its_clause(kind):
    sound = build(ThirdPartyConfig(), weights=None)
    subject = Subject(kind(sound.config, sound.module), example_samples(sound.spec))
    for clause in (clause for clause in CLAUSES if clause.__name__ in BROKEN[kind]):
        check = run_clause(clause, subject)
        assert not check.ok
        assert "raised" not in check.detail


def test_what_is_lost_in_saving_is_found():
    sound = build(ThirdPartyConfig(), weights=None)
    broken = LosesATensor(sound.config, sound.module)
    subject = Subject(broken, example_samples(sound.spec), lambda folder: build(ThirdPartyConfig(), weights=folder))
    with torch.no_grad(), pytest.raises(ClauseError, match="saved and loaded"):
        saved(subject)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"vision": r"tower\..*", "llm": r"nothing\..*"}, "matches no parameter"),
        ({"vision": r"tower\..*", "llm": r".*blocks\..*"}, "in two groups"),
        ({"vision": r"tower\..*"}, "missing"),
        ({"vision": r"tower\..*", "llm": r"blocks\..*", "eyes": r"tower\..*"}, "no group 'eyes'"),
    ],
)
def test_wrong_groups_are_named(groups, said):
    sound = build(ThirdPartyConfig(), weights=None)
    sound.spec = replace(sound.spec, groups=groups)
    check = run_clause(groups_clause, Subject(sound, example_samples(sound.spec)))
    assert not check.ok
    assert said in check.detail


def test_an_error_in_the_adapter_is_a_finding_and_not_a_crash():
    sound = build(ThirdPartyConfig(), weights=None)
    sound.features = None
    report = check_backbone(sound)
    assert "raised TypeError" in str(report)
    with pytest.raises(PluginError, match="one_vision_pass"):
        report.raise_for_failures()


def test_one_sample_is_not_enough():
    sound = build(ThirdPartyConfig(), weights=None)
    with pytest.raises(UserError, match="two or more"):
        check_backbone(sound, example_samples(sound.spec)[:1])


def test_the_report_reads_well():
    report = Report((Check("spec", True, "width 8"), Check("past", False, "they differ")))
    assert not report.ok
    assert str(report).splitlines() == [
        "ok    spec              width 8",
        "FAIL  past              they differ",
        "1 of 2 clauses hold",
    ]
