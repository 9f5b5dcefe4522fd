"""What the report says of the annotations: how well they agree with the simulator, and what they look like."""

from __future__ import annotations

from html import escape
from pathlib import Path

from PIL import Image

from pixelvla_core.annotate.pictures import NAME
from pixelvla_core.annotations.compare import compare

from .plan import ANNOTATIONS, CACHE, EXACT
from .strips import inline


def section(out: Path) -> str:
    """Return a section of the report; nothing where the demonstration in ``out`` has not annotated yet."""
    made, exact = out / ANNOTATIONS, out / EXACT
    if not made.is_dir() or not exact.is_dir():
        return ""
    agreement = compare(made, exact, cache=out / CACHE)
    sheet = Image.open(made / "steps" / NAME)
    return (
        "<h2>Annotations</h2>"
        "<p>Models learn from what the pipeline found with parts that need no download, beside what the simulator "
        f"knows: {escape(str(agreement))}.</p>"
        '<p class="note">Each pair: the frame on which the gripper closes, with the gripper and the region of the '
        "object; the first frame, with the object's mask.</p>"
        f'<img class="sheet" alt="Some annotated episodes" src="{inline(sheet)}">'
    )
