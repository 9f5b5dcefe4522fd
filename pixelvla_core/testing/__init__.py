"""Conformance of other people's parts: ``check_backbone`` runs every clause of the seam's contract on an adapter."""

from __future__ import annotations

from pixelvla_core.testing.check import check_backbone
from pixelvla_core.testing.report import Check, Report
from pixelvla_core.testing.subject import example_samples

__all__ = ["Check", "Report", "check_backbone", "example_samples"]
