"""``wrap``: a pixel-aware model around a base model's checkpoint, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from pixelvla_core.checkpoint.manifest import MANIFEST, Manifest, read_manifest
from pixelvla_core.checkpoint.save import describe, save
from pixelvla_core.contract.contract import CONVENTIONS, ActionContract
from pixelvla_core.contract.conventions import UNKNOWN_FPS, Gripper
from pixelvla_core.contract.infer import declared_facts
from pixelvla_core.contract.statistics import pick
from pixelvla_core.errors import CheckpointError, ContractError, RecipeError, suggest
from pixelvla_core.files import check_target, full_disk_is_user_error
from pixelvla_core.plugins import PluginManager
from pixelvla_core.recipe import compose, split_arguments
from pixelvla_core.seam.batch import Sample

if TYPE_CHECKING:
    from pixelvla_core.model.pixelvla import PixelVLA

LAYERS = ("encoder/pixelvla", "head/l1")
"""What is put around the base unless layers are named."""

VIEW = ("camera", "orientation", "frame")
DECLARED = ("names", "gripper_open", "gripper_closed", "rotation")
FACTS = ("key", "fps", *VIEW, *DECLARED)
"""What ``contract.X=VALUE`` may say; the rest of the contract comes from the base's statistics. What neither settles is
unknown to the contract, never guessed."""


def wrap(
    base: str,
    weights: str,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    full: bool = False,
    manager: PluginManager | None = None,
) -> Path:
    """Build the model around a base and write it as a checkpoint folder without stages.

    Args:
        base: Name of the backbone.
        weights: A checkpoint folder, a hub id, or a name under which a plugin ships weights.
        out: The folder to write; an earlier wrapped model is replaced if nothing else lies in its folder.
        overrides: Layers to use in place of the paper's parts, ``key=value`` overrides of the recipe, and
            ``contract.key=NAME``, ``contract.fps=5`` and the like for what the base's statistics leave open.
        full: Copy the base's weights into the folder.
        manager: The plugins; by default every installed one.

    Raises:
        UserError: parts do not fit, weights do not load, the base knows several datasets and none is named, or
            something else is in ``out``, such as the evaluation of an earlier model.
    """
    manager = PluginManager.load() if manager is None else manager
    check_target(out, "a wrapped model and nothing else", ours=_replaceable(out))
    layers, values = split_arguments(overrides)
    facts, values = _facts(values)
    recipe = compose(
        layers or LAYERS,
        [f"backbone.name={base}", f"backbone.weights={_absolute(weights)}", *values],
        registry=manager.registry,
    )
    facts = {**manager.registry.shipped_contract(base, weights), **facts}
    from pixelvla_core.model.assemble import assemble, build_backbone

    backbone = build_backbone(recipe, manager.registry)
    contract = infer_contract(backbone, facts)  # before the head is built, whose width it says
    model = assemble(recipe, contract=contract, registry=manager.registry, backbone=backbone)
    _check_acts(model)
    with full_disk_is_user_error(out.parent, "Nothing was written.", "run the same command again"):
        save(out, model, replace(recipe, run=[]), describe(model, recipe, manager.registry), full=full)
    _show(model, read_manifest(out), facts, out)
    return out


def infer_contract(backbone: Any, facts: dict[str, Any]) -> ActionContract | None:
    """The action contract around the base's own statistics, or None if the base carries none.

    Raises:
        ContractError: it carries several and none is named, the named one is not there, or a fact cannot be.
    """
    statistics = getattr(backbone, "statistics", None)
    if not statistics:
        return None
    try:
        key, _ = pick(statistics, facts.get("key"))
    except ContractError as error:
        raise ContractError(f"{error} Here you name it by contract.key=NAME.") from error
    declared = declared_facts(_names(facts), **{name: facts[name] for name in DECLARED[1:] if name in facts})
    given = {name: facts[name] for name in ("fps", *VIEW) if name in facts}
    unknown = [*declared.pop("unknown"), *(name for name in VIEW if name not in facts)]
    return ActionContract.from_norm_stats(
        statistics,
        key,
        unknown=[name for name in CONVENTIONS if name in unknown],
        **{"fps": UNKNOWN_FPS, "camera": backbone.spec.cameras[0], **given, **declared},
    )


def _names(facts: dict[str, Any]) -> list[str] | None:
    names = facts.get("names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ContractError(f"The contract's names is {names!r}; expected a list of names, such as [x,y,z,gripper].")
    return names


def _replaceable(out: Path) -> bool:
    """Whether a folder holds an untrained checkpoint and nothing else."""
    try:
        manifest = read_manifest(out)
    except CheckpointError:
        return False
    found = {str(item.relative_to(out)) for item in out.rglob("*") if not item.is_dir()}
    return not manifest.step and found <= {MANIFEST, *manifest.files}


def _check_acts(model: PixelVLA) -> None:
    """Refuse a base that loads but can never act.

    Raises:
        UserError: a weight is not finite, or the adapter cannot read an observation, such as for want of a tokenizer.
    """
    import torch

    for name, tensor in model.base.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"The base's tensor {name} holds NaN or infinite values, so whatever it computes means nothing. "
                "Download or copy the weights again."
            )
    model.collate([Sample.blank(model.backbone.spec)], train=False)


def _absolute(weights: str) -> str:
    return str(Path(weights).resolve()) if Path(weights).is_dir() else weights


def _facts(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Part ``contract.X=VALUE`` from the recipe's overrides."""
    facts = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith("contract."):
            name = key.removeprefix("contract.")
            if name not in FACTS:
                raise RecipeError(f"There is no {key!r}.{suggest(name, FACTS)} Known there: {', '.join(FACTS)}.")
            facts[name] = _value(override, value)
    return facts, [override for override in overrides if not override.startswith("contract.")]


def _value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"{override!r} cannot be read: {reason}. Its value is YAML, such as contract.fps=5."
        ) from error


def _show(model: PixelVLA, manifest: Manifest, facts: dict[str, Any], out: Path) -> None:
    table = Table(title=f"{out}", title_justify="left")
    for heading in ("part", "name", "distribution", "parameters"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left")
    modules = {
        "backbone": model.base,
        "pixel_encoder": model.pixel_encoder,
        "prompt_encoder": model.prompt_encoder,
        "action_head": model.head,
    }
    for kind, record in manifest.parts.items():
        count = sum(parameter.numel() for parameter in modules[kind].parameters()) if kind in modules else 0
        table.add_row(kind.replace("_", " "), record.name, f"{record.distribution} {record.version}", f"{count:,}")
    console = Console()
    console.print(table)
    console.print(_about_contract(model.contract), highlight=False)


def _about_contract(contract: ActionContract | None) -> str:
    if contract is None:
        return "No action contract: the base carries no statistics. Training takes it from the data."
    known = {
        "names": f"names {' '.join(contract.names)}",
        "fps": f"{contract.fps:g} fps",
        "gripper": _about_gripper(contract.gripper),
        "rotation": f"rotation {contract.rotation or 'none'}",
        "camera": f"camera {contract.camera!r}",
        "orientation": f"images {contract.orientation}",
        "frame": f"frame {contract.frame!r}",
    }
    said = [text for name, text in known.items() if contract.knows(name)]
    unknown = [name for name in known if not contract.knows(name)]
    return (
        f"Action contract from the base's statistics of {contract.dataset!r}: "
        f"{', '.join([f'{contract.dim} dimensions', f'rule {contract.rule}', *said])}."
    ) + (f" Not known: {', '.join(unknown)}. {_HOW}" if unknown else "")


_HOW = (
    "They are compared with no data and no robot until you state them: contract.fps=5, "
    "contract.names=[x,y,z,roll,pitch,yaw,gripper], contract.gripper_open=1 contract.gripper_closed=0, "
    "contract.rotation=euler_xyz_delta, contract.camera=, contract.orientation=, contract.frame=."
)


def _about_gripper(gripper: Gripper | None) -> str:
    return "no gripper" if gripper is None else f"gripper open at {gripper.open:g}, closed at {gripper.closed:g}"
