"""The segmenters ``sam2_hf`` and ``edgetam``: SAM 2 and EdgeTAM (Zhou et al. 2025) through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_segment.large import config as options
from pixelvla_segment.large.config import Sam2HfConfig, SamConfig
from pixelvla_segment.large.device import device_of, dtype_of
from pixelvla_segment.large.sam import Network, Queries, Sam
from pixelvla_segment.large.weights import SAFETENSORS, LocalWeights, find_weights

if TYPE_CHECKING:
    from torch import Tensor


class TransformersSam(Sam):
    """Any model with the face of transformers' ``Sam2Model``."""

    @staticmethod
    def model_class() -> Any:
        """Return the class in transformers."""
        raise NotImplementedError

    def weights(self) -> LocalWeights:
        return find_weights(self.config.model, self.config.revision, SAFETENSORS, ["config.json"])

    def load(self) -> Network:
        return TransformersNetwork(self.model_class(), self.config, self.weights())


class Sam2Hf(TransformersSam):
    """SAM 2."""

    def __init__(self, config: Sam2HfConfig | None = None) -> None:
        super().__init__(config or Sam2HfConfig())

    @staticmethod
    def model_class() -> Any:
        from transformers import Sam2Model

        return Sam2Model


class EdgeTam(TransformersSam):
    """EdgeTAM, made for telephones."""

    def __init__(self, config: options.EdgeTamConfig | None = None) -> None:
        super().__init__(config or options.EdgeTamConfig())

    @staticmethod
    def model_class() -> Any:
        from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVisionConfig

        # To print a configuration, transformers builds the default one, which asks the hub for a file of its own.
        for config in (EdgeTamConfig, EdgeTamVisionConfig):
            config.has_no_defaults_at_init = True
        return EdgeTamModel


class TransformersNetwork:
    """A model of transformers with its image processor."""

    def __init__(self, model_class: Any, config: SamConfig, weights: LocalWeights) -> None:
        from transformers import Sam2ImageProcessor

        self.device, self.dtype = device_of(config.device), dtype_of(config.dtype)
        model = model_class.from_pretrained(weights.folder, dtype=self.dtype, local_files_only=True)
        self.model = model.to(self.device).eval()
        self.processor = Sam2ImageProcessor.from_pretrained(weights.folder, local_files_only=True)
        self.size = self.model.config.prompt_encoder_config.image_size
        self.mask_size = self.model.prompt_encoder.mask_input_size[0]

    def encode(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        seen = self.processor(list(images), input_data_format="channels_last", return_tensors="pt")
        return self.model.get_image_embeddings(seen["pixel_values"].to(self.device, self.dtype))

    def decode(self, features: list[Tensor], queries: Queries, multimask: bool) -> tuple[Tensor, Tensor]:
        def grouped(tensor: Tensor | None) -> Tensor | None:
            """One group of prompts for each row of features."""
            return None if tensor is None else tensor[:, None]

        made = self.model(
            image_embeddings=features,
            input_points=grouped(queries.points),
            input_labels=grouped(queries.labels),
            input_boxes=grouped(queries.boxes),
            input_masks=None if queries.masks is None else queries.masks.to(self.dtype),
            multimask_output=multimask,
        )
        return made.pred_masks[:, 0], made.iou_scores[:, 0]
