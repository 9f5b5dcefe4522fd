"""A pixelvla checkpoint as a policy of LeRobot.

Shapes: B batch, H horizon, A action dim.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from pixelvla_core import checkpoint
from pixelvla_core.api import PluginManager, RecipeError, StateBackbone, UserError
from pixelvla_core.contract import ActionContract, Statistics
from pixelvla_core.contract.infer import declared_facts
from pixelvla_core.files import atomic_file, remove_partials

from .configuration_pixelvla import PixelVLAConfig
from .observation import rows_of, to_samples

FOLDER = "pixelvla"
"""Where in a policy's folder the checkpoint lies."""


class PixelVLAPolicy(PreTrainedPolicy):
    """Everything that a checkpoint of pixelvla holds, whatever its base.

    Args:
        config: Names the checkpoint.
        dataset_meta: LeRobot's metadata; gives the action contract if the checkpoint has none yet, and with it the
            statistics of states if the base has none.

    Raises:
        UserError: no checkpoint is named, its chunk is another one, or an override is none for a finished model.
    """

    config_class = PixelVLAConfig
    name = "pixelvla"

    def __init__(self, config: PixelVLAConfig, dataset_meta: Any = None, **_: Any) -> None:
        super().__init__(config)
        if config.checkpoint is None:
            raise UserError(
                "The policy pixelvla needs a checkpoint: give --policy.checkpoint=FOLDER, which `pixelvla wrap` or "
                "`pixelvla train` wrote."
            )
        loaded = checkpoint.load(config.checkpoint, overrides=config.overrides)
        self.model, self._recipe, self._trained = loaded.model, loaded.recipe, loaded.manifest.trained
        self._check_chunk()
        if self.model.contract is None and dataset_meta is not None:
            self.model.contract = contract_of(dataset_meta, self.model.camera, self._recipe.action.normalization)
            take_states(self.model, dataset_meta)
        self._choose(config.train_groups)
        self.reset()

    def _check_chunk(self) -> None:
        horizon = self.model.head.horizon
        if horizon != self.config.chunk_size:
            raise UserError(
                f"The checkpoint {self.config.checkpoint} predicts chunks of {horizon} actions, the policy's config "
                f"says {self.config.chunk_size}. Set --policy.chunk_size={horizon}."
            )

    def _choose(self, groups: list[str]) -> None:
        """Let these groups learn."""
        try:
            self.model.train_only(groups)
        except RecipeError as error:
            known = [row.group for row in self.model.train_only([]) if row.group != "other"]
            raise UserError(
                f"The policy's train_groups are {groups}, which this checkpoint does not fit. {error} What it has is "
                f'{", ".join(known)}: say --policy.train_groups=["{known[0]}"] or the like (in quotes of your shell).'
            ) from error

    def reset(self) -> None:
        """Forget the rest of the last chunk; called at the beginning of an episode."""
        self._queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def get_optim_params(self) -> Any:
        """What learns: the groups of the config.

        Raises:
            UserError: there are none, as in a policy that `pixelvla lerobot-policy` wrote to be run.
        """
        found = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not found:
            raise UserError(
                "Nothing in this policy learns: its train_groups are empty. Name the groups that shall, such as "
                '--policy.train_groups=["pixel","prompt"] (in quotes of your shell), or lora and head where the '
                "checkpoint has them."
            )
        return found

    def forward(self, batch: Mapping[str, Any], reduction: str = "mean") -> tuple[Tensor, dict]:
        """The training loss of the checkpoint's head.

        Args:
            reduction: "mean" for a scalar, "none" for one loss per sample, float[B] (one pass each).

        Raises:
            UserError: another reduction.
        """
        if reduction not in ("mean", "none"):
            raise UserError(f'The reduction is {reduction!r}; expected "mean", or "none" for one loss per sample.')
        samples = to_samples(batch, self.model.backbone.spec.cameras)
        if reduction == "none":
            rows = torch.stack([self._loss([sample]) for sample in samples])
            return rows, {"loss": rows.mean().item()}
        loss = self._loss(samples)
        return loss, {"loss": loss.item()}

    def _loss(self, samples: list) -> Tensor:
        return self.model.loss(self.model.collate(samples, train=True).to(self.model.device))

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any], **_: Any) -> Tensor:
        """A chunk in the data's units (normalised, if there is no action contract), float[B, H, A]."""
        self.eval()
        observation = {name: value for name, value in batch.items() if not name.startswith("action")}
        samples = to_samples(observation, self.model.backbone.spec.cameras)
        actions_BHA = self.model.predict(self.model.collate(samples, train=False).to(self.model.device))
        contract = self.model.contract
        return actions_BHA if contract is None else contract.unnormalize(actions_BHA.float())

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any], **_: Any) -> Tensor:
        """The next action of the running chunk, float[B, A]; looks again when `n_action_steps` are used up.

        Raises:
            UserError: the running chunk is of another number of rows.
        """
        if self._queue and len(self._queue[0]) != (rows := rows_of(batch, self.model.backbone.spec.cameras[0])):
            raise UserError(
                f"The running chunk is of {len(self._queue[0])} rows, the batch of {rows}. Call reset() before other "
                "episodes begin."
            )
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].transpose(0, 1))
        return self._queue.popleft()

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write LeRobot's config.json, and the checkpoint in a folder beside it.

        What a process that was killed left half-written there is removed; LeRobot lets one process save.
        """
        remove_partials(save_directory)
        given = self.config.checkpoint
        self.config.checkpoint = FOLDER
        try:
            with atomic_file(save_directory / CONFIG_NAME) as partial, TemporaryDirectory() as scratch:
                self.config._save_pretrained(Path(scratch))  # LeRobot writes it bit by bit
                shutil.copyfile(Path(scratch) / CONFIG_NAME, partial)
        finally:
            self.config.checkpoint = given
        registry = PluginManager.load().registry
        state = state_dict and {name.removeprefix("model."): value for name, value in state_dict.items()}
        trained = sorted({*self._trained, *self.config.train_groups} & set(self.model.backbone.spec.groups))
        header = checkpoint.describe(self.model, self._recipe, registry)
        checkpoint.save(save_directory / FOLDER, self.model, self._recipe, header, trained=trained, state=state)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        revision: str | None = None,
        **given: Any,
    ) -> PixelVLAPolicy:
        """Load what `save_pretrained` wrote, from a folder or the hub, in eval mode; strictly, as all checkpoints.

        Raises:
            CheckpointError: something is missing, damaged or does not fit.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(str(pretrained_name_or_path), revision=revision))
        found: Any = PreTrainedConfig.from_pretrained(folder) if config is None else config
        found.checkpoint = str(folder / FOLDER)
        policy = cls(found, dataset_meta=given.get("dataset_meta"))
        return policy.to(found.device).eval()


def take_states(model: Any, meta: Any) -> None:
    """Give a LeRobot dataset's statistics of states to a base that lacks them; they travel in the action contract."""
    backbone, contract, entry = model.backbone, model.contract, meta.stats.get("observation.state", {})
    known = all(field.name in entry for field in fields(Statistics))
    if contract is None or not known or not isinstance(backbone, StateBackbone) or not backbone.lacks_states:
        return
    found = Statistics.from_json({name: torch.as_tensor(value).flatten().tolist() for name, value in entry.items()})
    backbone.take_states(found)
    model.contract = replace(contract, state=found)


def contract_of(meta: Any, camera: str, rule: str) -> ActionContract:
    """An action contract around a LeRobot dataset's own statistics; what LeRobot does not know is unknown.

    Args:
        rule: By which actions are scaled, as the checkpoint's recipe says.

    Raises:
        ContractError: the statistics lack quantiles.
    """
    entry = {name: torch.as_tensor(value).flatten().tolist() for name, value in meta.stats["action"].items()}
    names = meta.features["action"].get("names")
    declared = declared_facts(names if isinstance(names, list) else None)
    unknown = (*declared.pop("unknown"), "orientation", "frame")
    facts = {"fps": float(meta.fps), "camera": camera, "rule": rule, **declared}
    return ActionContract.from_norm_stats({meta.repo_id: {"action": entry}}, unknown=unknown, **facts)
