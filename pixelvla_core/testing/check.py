"""``check_backbone``: does an adapter keep the contract of the seam?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pixelvla_core.component import Component
from pixelvla_core.errors import UserError
from pixelvla_core.seam.backbone import BackboneAdapter
from pixelvla_core.seam.batch import Sample
from pixelvla_core.testing import model_clauses, seam_clauses
from pixelvla_core.testing.report import Check, Report
from pixelvla_core.testing.subject import ClauseError, Subject, example_samples

Reload = Callable[[str], BackboneAdapter]
CLAUSES = (*seam_clauses.CLAUSES, *model_clauses.CLAUSES)


def check_backbone(
    backbone: BackboneAdapter | Component,
    samples: Sequence[Sample] | None = None,
    *,
    weights: str | None = None,
    options: dict | None = None,
) -> Report:
    """Run every clause of the contract on a backbone; ``docs/write_a_backbone.md`` explains each.

    The base is put into eval mode and otherwise left as it was.

    Args:
        backbone: An adapter, or the Component that builds one.
        samples: Observations for it, without prompts; by default random images and three instructions.
        weights: What the Component shall load; random weights of the configured architecture if left out.
        options: The Component's options.

    Returns:
        The report; print it, or call ``raise_for_failures()``.
    """
    adapter, reload = _built(backbone, weights, options or {}) if isinstance(backbone, Component) else (backbone, None)
    adapter.module.eval()
    chosen = tuple(samples) if samples is not None else example_samples(adapter.spec)
    if len(chosen) < 2:
        raise UserError(f"check_backbone got {len(chosen)} samples; it needs two or more, to compare rows of a batch.")
    subject = Subject(adapter, chosen, reload)
    return Report(tuple(run_clause(clause, subject) for clause in CLAUSES))


def _built(component: Component, weights: str | None, options: dict) -> tuple[BackboneAdapter, Reload]:
    """The adapter, and how to build it again from a folder."""
    config = component.load_config()(**options)

    def build(folder: str | None) -> BackboneAdapter:
        return component.build(config, weights=folder)

    return build(weights), build


def run_clause(clause: Callable[[Subject], str], subject: Subject) -> Check:
    """Run one clause; whatever the adapter raises is a finding."""
    name = clause.__name__
    # Only the clause on gradients needs a graph.
    with torch.set_grad_enabled(clause is model_clauses.gradients):
        try:
            return Check(name, True, clause(subject))
        except ClauseError as error:
            return Check(name, False, str(error))
        except Exception as error:
            return Check(name, False, f"raised {type(error).__name__}: {error}")
