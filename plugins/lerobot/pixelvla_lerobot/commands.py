"""``pixelvla data``."""

from __future__ import annotations

from pathlib import Path

import click

from pixelvla_core.errors import ContractError
from pixelvla_lerobot.config import LeRobotConfig

_FOLDER = click.Path(path_type=Path)


@click.group("data")
def data_group() -> None:
    """Look after datasets."""


@data_group.command("lint")
@click.argument("dataset", type=_FOLDER)
@click.option("--camera", default="front", show_default=True, help="Camera of the contract.")
@click.option("--rule", default="q99", show_default=True, help="Normalisation rule: q99, min_max or mean_std.")
@click.option("--rotation", help="Rotation representation, if the names do not tell, such as euler_xyz_delta.")
@click.option("--gripper", type=(float, float), metavar="OPEN CLOSED", help="Gripper values, if the data do not tell.")
def lint_dataset(
    dataset: Path, camera: str, rule: str, rotation: str | None, gripper: tuple[float, float] | None
) -> None:
    """Flag suspicious actions in DATASET, a LeRobotDataset's folder."""
    from pixelvla_core.contract import lint
    from pixelvla_lerobot.source import Source, short_name

    opened, closed = gripper or (None, None)
    config = LeRobotConfig(
        root=str(dataset), camera=camera, rule=rule, rotation=rotation, gripper_open=opened, gripper_closed=closed
    )
    source = Source.of(config)
    source.check_actions()
    columns = source.columns
    contract = source.contract(config, short_name(source.camera_key(camera)))
    findings = lint(
        columns.actions_NA,
        contract,
        episode_N=columns.episode_N,
        timestamp_N=columns.timestamp_N,
        state_NS=columns.state_NS,
    )
    click.echo(f"{source.name}: {len(columns.lengths)} episodes, {len(columns.episode_N)} frames")
    click.echo(f"gripper: {contract.gripper}\nrotation: {contract.rotation}")
    click.echo("\n".join(map(str, findings)) or "Nothing suspicious.")
    if any(finding.level == "error" for finding in findings):
        raise ContractError(f"{source.name} has errors; see above.")
