"""The detector ``grounding_dino``: Grounding DINO (Liu et al. 2024) through transformers.

Images of one size go through the model together, each with its own text. What the text encoder makes of a text is kept,
for the same few objects are named over and over. Letters of shapes: B images, L tokens, D width of the text encoder.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.annotate.models import Detection
from pixelvla_segment.large.config import GroundingDinoConfig
from pixelvla_segment.large.detector import TextDetector, caption, detections, words_of
from pixelvla_segment.large.device import device_of, dtype_of
from pixelvla_segment.large.weights import SAFETENSORS, LocalWeights, find_weights

if TYPE_CHECKING:
    from torch import Tensor


class GroundingDino(TextDetector):
    """Finds what a text names."""

    config: GroundingDinoConfig

    def __init__(self, config: GroundingDinoConfig | None = None) -> None:
        self.config = config or GroundingDinoConfig()

    def identity(self) -> dict[str, Any]:
        """Return name, revision and hashes of the weights.

        Raises:
            CheckpointError: they are not on this machine; says which command downloads them.
        """
        return {"weights": self._weights().identity()}

    def detect_alike(self, images: list[np.ndarray], texts: list[str]) -> list[list[Detection]]:
        """Return what is found on images of one size."""
        import torch

        model, processor = self.loaded
        captions = [caption(text) for text in texts]
        tokens = processor.tokenizer(captions, padding=True, return_tensors="pt").to(model.device)
        seen = processor.image_processor(images, input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            made = model(
                pixel_values=seen["pixel_values"].to(model.device, model.dtype),
                pixel_mask=seen["pixel_mask"].to(model.device),
                **tokens,
            )
        probabilities = made.logits.float().sigmoid()
        words = words_of(tokens["attention_mask"], probabilities.shape[2])
        return [
            detections(boxes, each, of_text, self.config)
            for boxes, each, of_text in zip(made.pred_boxes, probabilities, words, strict=True)
        ]

    def _weights(self) -> LocalWeights:
        return find_weights(self.config.model, self.config.revision, SAFETENSORS, ["config.json", "tokenizer*"])

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model and processor."""
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        folder, dtype = self._weights().folder, dtype_of(self.config.dtype)
        model: Any = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=dtype, local_files_only=True)
        model = model.to(device_of(self.config.device)).eval()
        if self.config.texts:
            model.model.text_backbone = remembering(model.model.text_backbone, self.config.texts)
        return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


def remembering(encoder: Any, most: int) -> Any:
    """Wrap a text encoder so that it encodes no text twice; masks and positions follow from the tokens alone.

    Args:
        most: Encodings that are kept, the latest used ones.
    """
    import torch

    class Remembering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

        def forward(self, tokens_BL: Tensor, masks: Tensor, types_BL: Tensor, places_BL: Tensor, **_: Any) -> Any:
            keys = [tuple(row) for row in tokens_BL.tolist()]
            new = {key: row for row, key in enumerate(keys) if key not in self.kept}
            if new:
                rows = torch.tensor([*new.values()], device=tokens_BL.device)
                made = self.encoder(tokens_BL[rows], masks[rows], types_BL[rows], places_BL[rows])
                self.kept.update(zip(new, made.last_hidden_state.unbind(0), strict=True))
            encoded_BLD = torch.stack([self.kept[key] for key in keys])
            for key in keys:
                self.kept.move_to_end(key)
            while len(self.kept) > most:
                self.kept.popitem(last=False)
            return SimpleNamespace(last_hidden_state=encoded_BLD)

    return Remembering()
