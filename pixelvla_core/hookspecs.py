"""The whole plugin surface. A plugin is a module with some of these functions, each marked ``@hookimpl``.

Hooks only collect; a registry keyed (kind, name) selects. So no hook depends on the order of plugins.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from pixelvla_core.component import Component, Weights

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("pixelvla")
hookimpl = pluggy.HookimplMarker("pixelvla")


@hookspec
def pixelvla_backbones() -> list[Component]:
    """Adapters of base models."""


@hookspec
def pixelvla_pixel_encoders() -> list[Component]:
    """Encoders of a masked region of the vision tower's features into tokens."""


@hookspec
def pixelvla_prompt_encoders() -> list[Component]:
    """Encoders of points, lines, boxes and masks."""


@hookspec
def pixelvla_action_heads() -> list[Component]:
    """Heads from the backbone's output to actions."""


@hookspec
def pixelvla_segmenters() -> list[Component]:
    """From an image and a visual prompt to a mask."""


@hookspec
def pixelvla_trackers() -> list[Component]:
    """From the mask on the first image to the masks on the next ones."""


@hookspec
def pixelvla_detectors() -> list[Component]:
    """From an image and a text to boxes."""


@hookspec
def pixelvla_reasoners() -> list[Component]:
    """From an instruction to the object that is to be grasped."""


@hookspec
def pixelvla_gripper_finders() -> list[Component]:
    """From the frames on which grippers close to masks of the gripper."""


@hookspec
def pixelvla_recordings() -> list[Component]:
    """Episodes as they were recorded, to be annotated."""


@hookspec
def pixelvla_runners() -> list[Component]:
    """Where and how the tasks of an annotation are carried out."""


@hookspec
def pixelvla_datasets() -> list[Component]:
    """Sources of training samples."""


@hookspec
def pixelvla_environments() -> list[Component]:
    """Worlds for closed-loop evaluation."""


@hookspec
def pixelvla_weights() -> list[Weights]:
    """Base weights that the distribution ships, by name."""


@hookspec
def pixelvla_recipe_dirs() -> list[Path]:
    """Folders that hold recipe layers."""


@hookspec
def pixelvla_commands(cli: click.Group) -> None:
    """Add commands to the command line; import what is heavy inside the command's function."""
