"""Serves the review page over drawn scenes, as a process of its own: ``python reviewing.py SIDECAR EPISODES``."""

from __future__ import annotations

import sys
from pathlib import Path

from annotating import Oracle, Scenes
from pixelvla_review.parts import Parts
from pixelvla_review.server import serve
from pixelvla_review.store import Store

from pixelvla_core.files import locked


def parts(episodes: int) -> Parts:
    """The scenes, and models that know where the square is."""
    scenes = Scenes(episodes)
    return Parts(scenes, lambda: Oracle(scenes), lambda: Oracle(scenes))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with locked(folder):
        serve(Store(folder, "ana"), parts(int(sys.argv[2])), 0, browser=False)
