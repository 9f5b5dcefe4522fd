"""The public class: load an OpenVLA checkpoint, predict actions, compute the training loss, save it again.

B batch, L text length, A action dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelvla_core.errors import CheckpointError, UserError

from . import weights
from .actions import ActionTokenizer, action_stats, unnormalise
from .config import ModelConfig
from .prismatic import Prismatic, pad_right

IGNORE = -100


class OpenVLA(Prismatic):
    """An OpenVLA: the network, its action ids and its action statistics.

    Attributes:
        config: The architecture.
        actions: Encodes and decodes action ids.
        norm_stats: Action statistics by data set.
    """

    def __init__(self, config: ModelConfig, *, attention: str = "sdpa") -> None:
        super().__init__(config, attention=attention)
        self.actions = ActionTokenizer(config.vocab_size, config.action_bins)
        self.norm_stats: Mapping[str, Any] = config.raw.get("norm_stats") or {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, seed: int = 0, attention: str = "sdpa") -> OpenVLA:
        """Build a model with random weights from the dictionary of a `config.json`; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(ModelConfig.from_dict(config), attention=attention)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa", device: str = "cpu"
    ) -> OpenVLA:
        """Load a checkpoint folder in the official layout.

        Args:
            folder: Holds config.json and safetensors, and optionally dataset_statistics.json.
            dtype: All weights are cast to it.

        Raises:
            CheckpointError: something is missing, damaged, pickled, or does not fit; nothing is ever loaded in part.
        """
        folder = Path(folder)
        config = ModelConfig.from_dict(read_config(folder))
        stored = weights.headers(folder)
        with torch.device("meta"):
            model = cls(config, attention=attention)
        weights.check(model, stored, folder)
        weights.load(model, stored, dtype)
        _fill_buffers(model)
        return model.to(device).eval()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write the official layout: config.json, safetensors, dataset_statistics.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights.save(self, folder, dtype)
        name = str(dtype).removeprefix("torch.")
        weights.write_json(
            folder / "config.json", {**self.config.raw, "norm_stats": dict(self.norm_stats), "torch_dtype": name}
        )
        if self.norm_stats:
            weights.write_json(folder / "dataset_statistics.json", dict(self.norm_stats))

    def vision_features(self, pixel_values: Tensor) -> Tensor:
        """Return the joined tower features float[B, N, C] that the projector reads."""
        return self.vision_backbone(pixel_values.to(self.vision_dtype))[0]

    def project(self, features: Tensor) -> Tensor:
        """Return the projected patches float[B, N, D]."""
        return self.projector(features)

    def loss(
        self, input_ids: Tensor, pixel_values: Tensor, labels: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean cross entropy over the labelled ids, all of them predicted in one pass.

        Args:
            input_ids: int[B, L], prompt and answer, padded on the right; see `teacher_forcing`.
            pixel_values: float[B, 3 * towers, H, W].
            labels: int[B, L], not shifted; -100 where nothing is to be predicted.
            attention_mask: [B, L], nonzero on valid ids.
        """
        valid_BL = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        tokens_BSD, valid_BS = self.fuse(input_ids, valid_BL, self.image_tokens(pixel_values)[0])
        hidden_BSD = self.run(tokens_BSD, valid_BS)
        # Behind the patches, the hidden state at the place of text token t predicts t + 1: only those are turned to logits.
        text_BLD = hidden_BSD[:, -(input_ids.shape[1] - 1) - 1 : -1]
        wanted = labels[:, 1:] != IGNORE
        logits = self.language_model.lm_head(text_BLD[wanted])
        return nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])

    def teacher_forcing(self, prompts: Sequence[Sequence[int]], actions_BA: np.ndarray) -> dict[str, Tensor]:
        """Build a training batch: prompt, empty id, action ids, end of sequence; padded on the right.

        Args:
            prompts: Ids of each prompt, BOS first.
            actions_BA: Normalised actions in [-1, 1].

        Returns:
            "input_ids", "attention_mask" and "labels", each int[B, L]; only actions and end of sequence have labels.
        """
        rows, labels = [], []
        for prompt, answer in zip(prompts, self.actions.encode(actions_BA).tolist(), strict=True):
            head, tail = self.with_empty_id(prompt), [*answer, self.config.eos_token_id]
            rows.append(head + tail)
            labels.append([IGNORE] * len(head) + tail)
        ones = [[1] * len(row) for row in rows]
        fills = {"input_ids": (rows, self.config.pad_token_id), "attention_mask": (ones, 0), "labels": (labels, IGNORE)}
        return {name: pad(values, fill) for name, (values, fill) in fills.items()}

    def with_empty_id(self, prompt: Sequence[int]) -> list[int]:
        """Return the prompt's ids with the empty id at the end, where the answer begins."""
        ids, empty = list(prompt), self.config.empty_token_id
        return ids if ids[-1] == empty else [*ids, empty]

    @torch.inference_mode()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, steps: int, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Return the `steps` greedy ids int[B, steps] behind each prompt (empty id added where it lacks)."""
        from transformers import DynamicCache

        ids_BL, valid_BL = pad_right(input_ids, attention_mask)
        prompts = [self.with_empty_id(row[keep].tolist()) for row, keep in zip(ids_BL, valid_BL, strict=True)]
        ids_BL = pad(prompts, self.config.pad_token_id).to(input_ids.device)
        valid_BL = pad([[1] * len(p) for p in prompts], 0).to(input_ids.device).bool()
        tokens_BSD, valid_BS = self.fuse(ids_BL, valid_BL, self.image_tokens(pixel_values)[0])
        past = DynamicCache(config=self.language_model.config)
        hidden_BSD = self.run(tokens_BSD, valid_BS, past)
        rows = torch.arange(len(prompts), device=hidden_BSD.device)
        last_BD = hidden_BSD[rows, valid_BS.sum(dim=1) - 1]
        found = [self._greedy(last_BD)]
        for _ in range(steps - 1):
            valid_BS = torch.cat([valid_BS, valid_BS.new_ones(len(prompts), 1)], dim=1)
            last_BD = self.run(self.embed(found[-1][:, None]), valid_BS, past)[:, -1]
            found.append(self._greedy(last_BD))
        return torch.stack(found, dim=1)

    def _greedy(self, hidden_BD: Tensor) -> Tensor:
        return self.language_model.lm_head(hidden_BD).argmax(dim=-1)

    def predict_action(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        unnorm_key: str | None = None,
        attention_mask: Tensor | None = None,
    ) -> np.ndarray:
        """Predict one action per row, in the units of the data set `unnorm_key`.

        Args:
            input_ids: int[B, L], BOS first; rows of different length are padded on either side.
            pixel_values: float[B, 3 * towers, H, W].
            unnorm_key: May be left out if the checkpoint knows a single data set.
            attention_mask: [B, L], nonzero on valid ids.

        Returns:
            float64[B, A].
        """
        stats = action_stats(self.norm_stats, unnorm_key)
        ids_BA = self.generate(input_ids, pixel_values, len(stats["q01"]), attention_mask)
        return unnormalise(self.actions.decode(ids_BA.cpu().numpy()), stats)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; a dataset_statistics.json beside it replaces its statistics.

    Raises:
        CheckpointError: there is no config.json, or a file is not JSON.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json. Give the folder of an OpenVLA checkpoint.")
    config = _json(folder / "config.json")
    if (folder / "dataset_statistics.json").is_file():
        config["norm_stats"] = _json(folder / "dataset_statistics.json")
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Download or copy it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object. Download or copy it again.")
    return value


def pad(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return int[B, L], the rows padded on the right."""
    if not rows:
        raise UserError("A batch needs at least one row.")
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def _fill_buffers(model: Prismatic) -> None:
    """Compute what no checkpoint holds: the rotary frequencies, which the meta device left empty."""
    rotary = model.language_model.model.rotary_emb
    model.language_model.model.rotary_emb = type(rotary)(config=model.language_model.config)
