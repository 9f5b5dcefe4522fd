"""``pixelvla annotations``: look after sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from pixelvla_core.errors import DataError

if TYPE_CHECKING:
    from pixelvla_core.annotate.models import Recording

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("annotations")
def annotations_group() -> None:
    """Look after annotation sidecars."""


@annotations_group.command("stats")
@click.argument("path", type=_PATH)
@click.option("--picture", type=_FILE, help="Draw the histogram of mask areas to this PNG file.")
def stats(path: Path, picture: Path | None) -> None:
    """Say what the sidecar in PATH holds: kept and discarded episodes by reason, coverage, sizes."""
    from pixelvla_core.annotations.stats import draw
    from pixelvla_core.annotations.stats import stats as count

    found = count(path)
    click.echo(found)
    if picture:
        draw(found, picture)
        click.echo(f"Wrote {picture}.")


@annotations_group.command("validate")
@click.argument("path", type=_PATH)
@click.argument("dataset", required=False)
def validate(path: Path, dataset: str | None) -> None:
    """Check the sidecar in PATH, and that it belongs to DATASET if one is given."""
    from pixelvla_core.annotations.reader import read_manifest
    from pixelvla_core.annotations.validate import validate as check

    recording = _recording(dataset, read_manifest(path)["camera"]) if dataset else None
    problems = check(
        path,
        fingerprint=recording.fingerprint if recording else None,
        lengths=recording.lengths if recording else None,
    )
    for problem in problems:
        click.echo(problem)
    if problems:
        raise DataError(f"{path} has {len(problems)} problems; see above. Annotate again, or copy the damaged files.")
    click.echo(f"{path} is valid.")


@annotations_group.command("compare")
@click.argument("path", type=_PATH)
@click.argument("truth", type=_PATH)
@click.option("--targets", default=20, show_default=True, type=click.IntRange(0), help="How many targets are listed.")
def compare(path: Path, truth: Path, targets: int) -> None:
    """Judge the sidecar in PATH by that in TRUTH, such as a simulator's: episodes kept, masks missed and how exact."""
    from pixelvla_core.annotations.compare import compare as judge
    from pixelvla_core.annotations.compare import table

    click.echo(table(judge(path, truth), targets))


@annotations_group.command("merge")
@click.argument("paths", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="The merged sidecar's folder.")
def merge(paths: tuple[Path, ...], out: Path) -> None:
    """Write one sidecar from those in PATHS, which are about different episodes of one dataset and camera."""
    from pixelvla_core.annotations.merge import merge as join

    click.echo(f"Wrote {join(paths, out)}.")


@annotations_group.command("export")
@click.argument("path", type=_PATH)
@click.argument("out", type=_FILE)
@click.argument("dataset", required=False)
@click.option("--format", "kind", type=click.Choice(["coco"]), default="coco", show_default=True)
def export(path: Path, out: Path, dataset: str | None, kind: str) -> None:
    """Write the usable masks of the sidecar in PATH to OUT, after comparing it with DATASET if one is given."""
    from pixelvla_core.annotations.coco import export_coco
    from pixelvla_core.annotations.reader import Sidecar, read_manifest

    if dataset:
        recording = _recording(dataset, read_manifest(path)["camera"])
        Sidecar(path).check_dataset(recording.fingerprint, dataset)
    click.echo(f"Wrote {export_coco(path, out)} annotations to {out}.")


@annotations_group.command("push")
@click.argument("path", type=_PATH)
@click.option("--repo-id", required=True, help="The dataset's repository on the hub, or one for the annotations.")
@click.option("--into", help="Folder in the repository.  [default: annotations/CAMERA]")
@click.option("--revision", help="Branch; made if there is none.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
def push(path: Path, repo_id: str, into: str | None, revision: str | None, private: bool) -> None:
    """Upload the sidecar in PATH to the Hugging Face Hub."""
    from pixelvla_core.annotations.push import push as upload

    click.echo(upload(path, repo_id, into=into, revision=revision, private=private))


@annotations_group.command("oracle")
@click.argument("masks", type=_PATH)
@click.argument("dataset")
@click.argument("out", type=_PATH)
@click.option("--camera", default="front", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the stored points and lines.")
def oracle(masks: Path, dataset: str, out: Path, camera: str, seed: int) -> None:
    """Write the sidecar OUT for DATASET from a simulator's exact MASKS (a .masks.jsonl file)."""
    from pixelvla_core.annotations.oracle import annotate
    from pixelvla_core.files import check_outside

    check_outside(out, dataset)
    recording = _recording(dataset, camera)
    annotate(
        masks,
        out,
        dataset=recording.name,
        fingerprint=recording.fingerprint,
        camera=recording.camera,
        lengths=recording.lengths,
        revision=recording.revision,
        seed=seed,
    )
    click.echo(f"Wrote {out}.")


def _recording(dataset: str, camera: str) -> Recording:
    """Open a LeRobotDataset by whichever plugin reads them."""
    from pixelvla_core.plugins import PluginManager

    component = PluginManager.load().registry.get("recording", "lerobot")
    return cast("Recording", component.build(None, dataset, camera))
