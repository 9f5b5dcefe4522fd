"""``pixelvla review``."""

from __future__ import annotations

import getpass
from pathlib import Path

import click


@click.command("review")
@click.argument("annotations", type=click.Path(path_type=Path))
@click.argument("dataset", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; any free one if left out.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--as", "who", default=None, metavar="NAME", help="Who decides, for the log; you if left out.")
@click.option("--recording", default="lerobot", show_default=True, help="What reads the dataset.")
@click.option("--segmenter", default="grabcut", show_default=True, help="From clicks and boxes to masks.")
@click.option("--tracker", default="follow", show_default=True, help="Carries a redrawn mask on; none for none.")
def review(
    annotations: Path,
    dataset: str | None,
    port: int,
    no_browser: bool,
    who: str | None,
    recording: str,
    segmenter: str,
    tracker: str,
) -> None:
    """Look through ANNOTATIONS of DATASET on a local web page: keep, reject, redraw."""
    from pixelvla_core.files import locked
    from pixelvla_review.parts import Parts
    from pixelvla_review.server import serve
    from pixelvla_review.store import Store

    parts = Parts.of(annotations, dataset, recording, segmenter, None if tracker == "none" else tracker)
    with locked(annotations):
        store = Store(annotations, who or getpass.getuser())
        if store.replayed:
            click.echo(f"Applied {store.replayed} decisions of the log that an interruption had left.")
        serve(store, parts, port, browser=not no_browser)
