"""Instructions in plain English, several ways to say each task."""

from __future__ import annotations

from typing import Final

TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "pick": (
        "pick the {target}",
        "pick up the {target}",
        "grab the {target}",
        "lift the {target}",
        "take the {target}",
        "grasp the {target} and lift it",
    ),
    "move_near": (
        "move the {target} near the {reference}",
        "bring the {target} close to the {reference}",
        "put the {target} next to the {reference}",
        "carry the {target} over to the {reference}",
        "place the {target} beside the {reference}",
    ),
    "open_drawer": ("open the drawer", "pull the drawer open", "pull out the drawer", "slide the drawer open"),
    "close_drawer": ("close the drawer", "push the drawer shut", "shut the drawer", "push in the drawer"),
}


def instruction(task: str, choice: int, target: str, reference: str | None) -> str:
    """Return paraphrase number ``choice`` (taken modulo their count) of a task; index 0 is the canonical wording."""
    templates = TEMPLATES[task]
    return templates[choice % len(templates)].format(target=target, reference=reference)
