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
    reload = None
    if isinstance(backbone, Component):
        component, config = backbone, backbone.load_config()(**(options or {}))

        def reload(folder: str) -> BackboneAdapter:
            return component.build(config, weights=folder)

        backbone = component.build(config, weights=weights)
    backbone.module.eval()
    chosen = tuple(samples) if samples is not None else example_samples(backbone.spec)
    if len(chosen) < 2:
        raise UserError(f"check_backbone got {len(chosen)} samples; it needs two or more, to compare rows of a batch.")
    subject = Subject(backbone, chosen, reload)
    return Report(tuple(_run(clause, subject) for clause in CLAUSES))


def _run(clause: Callable[[Subject], str], subject: Subject) -> Check:
    name = clause.__name__
    # Only the clause on gradients needs a graph.
    with torch.set_grad_enabled(clause is model_clauses.gradients):
        try:
            return Check(name, True, clause(subject))
        except ClauseError as error:
            return Check(name, False, str(error))
        except Exception as error:  # somebody else's code: whatever it raises is the finding
            return Check(name, False, f"raised {type(error).__name__}: {error}")
