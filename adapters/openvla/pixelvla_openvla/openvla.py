"""The public class: load an OpenVLA checkpoint, predict actions, compute the training loss, save it again.

B batch, L text length, A action dim, N patches, C feature width, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pixelvla_core.api import UserError

from . import weights
from .actions import ActionTokenizer, action_stats, check_statistics, unnormalise
from .config import ModelConfig, usable
from .prismatic import CAMERA, Prismatic, pad_right
from .processing import ImageProcessor, PromptTokenizer, has_tokenizer, load_tokenizer

IGNORE = -100


class OpenVLA(Prismatic):
    """An OpenVLA: the network, its action ids, its action statistics, and what prepares its inputs.

    Attributes:
        config: The architecture.
        actions: Encodes and decodes action ids.
        norm_stats: Data set -> "action" -> statistics, as in `dataset_statistics.json`.
        images: The image processor.
        folder: Where the checkpoint lies; None for a model that was built from a config.
    """

    def __init__(self, config: ModelConfig, folder: Path | None = None) -> None:
        super().__init__(config)
        self.folder = folder
        self.actions = ActionTokenizer(config.vocab_size, config.action_bins)
        self.norm_stats: Mapping[str, Any] = config.raw.get("norm_stats") or {}
        check_statistics(self.norm_stats)
        self.images = ImageProcessor.load(folder, config)
        self._tokenizer: PromptTokenizer | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, seed: int = 0) -> OpenVLA:
        """Build a model with random weights from the dictionary of a `config.json`; one seed always gives the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with usable("the config"):
                return cls(ModelConfig.from_dict(config))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        quantize: str | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> OpenVLA:
        """Load a checkpoint in the official layout, in eval mode.

        Args:
            folder: A folder with config.json and safetensors, or an id on the Hugging Face hub such as
                "openvla/openvla-7b" (downloaded once).
            dtype: The weights are cast to it, such as `torch.bfloat16` or "bfloat16"; as stored if left out.
            quantize: "8bit" or "4bit" store the linear layers of the language model's blocks so (needs bitsandbytes).
            device: Where the model goes.
            revision: Branch, tag or commit on the hub.

        Raises:
            CheckpointError: something is missing, damaged, pickled, or does not fit; nothing is ever loaded in part.
        """
        folder = weights.local_folder(folder, revision)
        raw = weights.read_config(folder)
        config = ModelConfig.from_dict(raw)
        stored = weights.headers(folder)
        with usable(f"config.json in {folder}"), torch.device("meta"):
            model = cls(config, folder)
        weights.check(model, stored, folder)
        weights.load(model, stored, as_dtype(dtype or raw.get("torch_dtype") or "float32"))
        _fill_buffers(model)
        if quantize is not None:
            from .quantize import quantize_blocks

            quantize_blocks(model.language_model.model, quantize)
        return model.to(device).eval()

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | str = torch.bfloat16) -> None:
        """Write an ordinary checkpoint folder, with image processor and statistics, and the tokenizer if known.

        The folder is written beside and renamed; an older checkpoint of that name is replaced as a whole.

        Raises:
            UserError: the folder exists and holds something that is no checkpoint, or the weights are quantized.
        """
        dtype = as_dtype(dtype)
        raw = {
            **self.config.raw,
            "norm_stats": dict(self.norm_stats),
            "torch_dtype": str(dtype).removeprefix("torch."),
        }
        files = {"config.json": raw, "preprocessor_config.json": self.images.to_dict()}
        if self.norm_stats:
            files["dataset_statistics.json"] = dict(self.norm_stats)
        ids = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "pad_token_id"}
        files["generation_config.json"] = {name: self.config.text[key] for name, key in ids.items()}
        weights.save_folder(self, Path(folder), dtype, files, self._tokenizer_text())

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The checkpoint's tokenizer, loaded on first use.

        Raises:
            CheckpointError: the checkpoint has none.
        """
        if self._tokenizer is None:
            if self.folder is None:
                raise UserError("This model was built from a config and has no tokenizer; set `model.tokenizer` first.")
            self._tokenizer = load_tokenizer(self.folder, self.config)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer

    def _tokenizer_text(self) -> str | None:
        known = self._tokenizer is not None or (self.folder is not None and has_tokenizer(self.folder))
        return self.tokenizer.tokenizer.to_str() if known else None

    def inputs(self, images: Sequence[np.ndarray | Image.Image], instructions: Sequence[str]) -> dict[str, Tensor]:
        """Prepare a batch from one RGB image (uint8[H, W, 3]) and one instruction per row.

        Returns:
            "input_ids" and "attention_mask" int[B, L], padded on the right; "pixel_values" float[B, 3 * towers, H, W].
        """
        prompts = [self.tokenizer(instruction)[0] for instruction in instructions]
        pixels = torch.stack([self.images(image) for image in images])
        where = self.projector.fc1.weight.device
        return {"pixel_values": pixels.to(where), **{k: v.to(where) for k, v in self.pad_prompts(prompts).items()}}

    def pad_prompts(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return "input_ids" and "attention_mask" int[B, L], padded on the right."""
        ones = [[1] * len(prompt) for prompt in prompts]
        return {"input_ids": pad(prompts, self.config.pad_token_id), "attention_mask": pad(ones, 0)}

    def vision_features(self, pixel_values: Tensor) -> Tensor:
        """Return the joined tower features float[B, N, C] that the projector reads."""
        return self.vision_backbone(pixel_values)[0]

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
        ones_BL = torch.ones_like(input_ids, dtype=torch.bool)
        valid_BL = ones_BL if attention_mask is None else attention_mask.bool()
        patches_BND, _ = self.image_tokens(pixel_values)
        hidden_BSD, _ = self.run(self.prefix(input_ids, valid_BL, {CAMERA: patches_BND}))
        # The last patch predicts text id 1, and so on.
        return self.answer_loss(hidden_BSD[:, patches_BND.shape[1] : -1], labels[:, 1:])

    def answer_loss(self, hidden_BLD: Tensor, labels_BL: Tensor) -> Tensor:
        """Return the mean cross entropy where there is a label; only those places are turned to logits."""
        wanted = labels_BL != IGNORE
        logits = self.language_model.lm_head(hidden_BLD[wanted])
        return nn.functional.cross_entropy(logits.float(), labels_BL[wanted])

    def answers(self, actions_BA: np.ndarray) -> Tensor:
        """Return what the model should say for normalised actions: A action ids and end of sequence, int[B, A + 1]."""
        ids_BA = torch.from_numpy(self.actions.encode(actions_BA))
        return torch.cat([ids_BA, torch.full((len(ids_BA), 1), self.config.eos_token_id)], dim=1)

    def teacher_forcing(self, prompts: Sequence[Sequence[int]], actions_BA: np.ndarray) -> dict[str, Tensor]:
        """Build a training batch: prompt, empty id, action ids, end of sequence; padded on the right.

        Args:
            prompts: Ids of each prompt, BOS first.
            actions_BA: Normalised actions in [-1, 1].

        Returns:
            "input_ids", "attention_mask" and "labels", each int[B, L]; only actions and end of sequence have labels.
        """
        heads = [self.with_empty_id(prompt) for prompt in prompts]
        tails = self.answers(actions_BA).tolist()
        rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
        labels = [[IGNORE] * len(head) + tail for head, tail in zip(heads, tails, strict=True)]
        return {**self.pad_prompts(rows), "labels": pad(labels, IGNORE)}

    def with_empty_id(self, prompt: Sequence[int]) -> list[int]:
        """Return the prompt's ids with the empty id at the end, where the answer begins."""
        ids, empty = list(prompt), self.config.empty_token_id
        return ids if ids[-1] == empty else [*ids, empty]

    @torch.inference_mode()
    def generate(
        self, input_ids: Tensor, pixel_values: Tensor, steps: int, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Return the `steps` greedy ids int[B, steps] behind each prompt (empty id added where it lacks)."""
        ids_BL, valid_BL = pad_right(input_ids, attention_mask)
        rows = [self.with_empty_id(row[keep].tolist()) for row, keep in zip(ids_BL, valid_BL, strict=True)]
        text = {name: value.to(input_ids.device) for name, value in self.pad_prompts(rows).items()}
        images = {CAMERA: self.image_tokens(pixel_values)[0]}
        return self.greedy(self.prefix(text["input_ids"], text["attention_mask"].bool(), images), steps)

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
            attention_mask: [B, L], nonzero on valid ids; None if all are.

        Returns:
            float64[B, A].
        """
        stats = action_stats(self.norm_stats, unnorm_key)
        ids_BA = self.generate(input_ids, pixel_values, len(stats["q01"]), attention_mask)
        return unnormalise(self.actions.decode(ids_BA.cpu().numpy()), stats)


def pad(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return int[B, L], the rows padded on the right."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return the floating-point type of that name.

    Raises:
        UserError: there is none, or weights cannot be kept in it.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise UserError(f"dtype is {dtype!r}; weights can be float32, bfloat16 or float16.")
    return found


def _fill_buffers(model: Prismatic) -> None:
    """Compute what no checkpoint holds: the rotary frequencies, which the meta device left empty."""
    llama = model.language_model
    llama.model.rotary_emb = type(llama.model.rotary_emb)(config=llama.config)
