"""The steps of the pipeline, in order; each has its own artefact."""

from __future__ import annotations

from pixelvla_core.annotate.steps.closing import Closing
from pixelvla_core.annotate.steps.grippers import Grippers
from pixelvla_core.annotate.steps.masks import Masks
from pixelvla_core.annotate.steps.objects import Objects
from pixelvla_core.annotate.steps.regions import Regions
from pixelvla_core.annotate.steps.step import Product, Step
from pixelvla_core.annotate.steps.targets import Targets
from pixelvla_core.annotate.steps.video import Video

STEPS: tuple[type[Step], ...] = (Closing, Video, Grippers, Regions, Targets, Objects, Masks)

__all__ = ["STEPS", "Product", "Step"]
