"""Step 2: the discrete video, all frames on which grippers close in an order in which neighbours look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pixelvla_core.annotate.compose import order
from pixelvla_core.annotate.steps.step import Product, Step

THUMBNAIL = (8, 8, 3)


class Video(Step):
    """Orders the episodes that have such a frame."""

    name = "video"
    title = "Compose the discrete video"
    after = ("closing",)
    schema = pa.schema(
        [pa.field("episode", pa.int32(), nullable=False), pa.field("close_frame", pa.int32(), nullable=False)]
    )

    def tasks(self) -> Sequence[int]:
        return [0]

    def run(self, key: int) -> Product:
        rows = self.work.workspace.read_all("closing", range(len(self.work.shards)))
        found = [(row["episode"], row["close_frame"], row["thumbnail"]) for row in rows if not row["reason"]]
        if not found:
            return Product([])
        thumbnails = np.stack([np.frombuffer(each[2], np.uint8).reshape(THUMBNAIL) for each in found])
        places = order(thumbnails)
        return Product([{"episode": found[place][0], "close_frame": found[place][1]} for place in places])
