"""The detector ``groundingdino_py``: Grounding DINO (Liu et al. 2024) through its authors' package."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.annotate.models import Detection
from pixelvla_core.api import CheckpointError, UserError
from pixelvla_segment.large.config import GroundingDinoPyConfig
from pixelvla_segment.large.detector import TextDetector, caption, detections, words_of
from pixelvla_segment.large.device import device_of
from pixelvla_segment.large.weights import LocalWeights, find_weights, needs

if TYPE_CHECKING:
    from torch import Tensor


class GroundingDinoPy(TextDetector):
    """Finds what a text names."""

    config: GroundingDinoPyConfig

    def __init__(self, config: GroundingDinoPyConfig | None = None) -> None:
        self.config = config or GroundingDinoPyConfig()

    def identity(self) -> dict[str, Any]:
        """Return name, revision and hashes of the weights.

        Raises:
            CheckpointError: they are not on this machine; says which command downloads them.
            UserError: the package is not installed.
        """
        _package()
        return {"weights": self._weights().identity(), "text_weights": self._text_weights().identity()}

    def detect_alike(self, images: list[np.ndarray], texts: list[str]) -> list[list[Detection]]:
        """Return what is found on images of one size."""
        import torch

        captions = [caption(text) for text in texts]
        pixels = torch.stack([self._pixels(image) for image in images])
        with torch.inference_mode():
            made = self.model(pixels.to(device_of(self.config.device)), captions=captions)
        probabilities = made["pred_logits"].float().sigmoid()
        mask = self.model.tokenizer(captions, padding=True, return_tensors="pt")["attention_mask"]
        words = words_of(mask.to(probabilities.device), probabilities.shape[2])
        return [
            detections(boxes, each, of_text, self.config)
            for boxes, each, of_text in zip(made["pred_boxes"], probabilities, words, strict=True)
        ]

    def _pixels(self, image: np.ndarray) -> Tensor:
        """The image as the package's own ``load_image`` prepares it, float32[3, h, w]."""
        import groundingdino.datasets.transforms as transforms
        from PIL import Image

        prepare = transforms.Compose(
            [
                transforms.RandomResize([self.config.size], max_size=self.config.longest),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )
        return prepare(Image.fromarray(image), None)[0]

    @cached_property
    def model(self) -> Any:
        """The package's model with its weights, every one of them."""
        import torch

        package = _package()
        from groundingdino.util.misc import clean_state_dict
        from groundingdino.util.slconfig import SLConfig

        described = SLConfig.fromfile(str(self._architecture(Path(package.__path__[0]))))
        described.device = str(device_of(self.config.device))
        described.text_encoder_type = str(self._text_weights().folder)
        model = _built(described)
        weights = self._weights()
        file = weights.folder / weights.files[0]
        stored = clean_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"])
        _check_names(model, stored, file)
        model.load_state_dict(stored, strict=False)
        return model.to(device_of(self.config.device)).eval()

    def _architecture(self, package: Path) -> Path:
        for path in (Path(self.config.architecture).expanduser(), package / "config" / self.config.architecture):
            if path.is_file():
                return path
        raise UserError(
            f"The architecture {self.config.architecture} is no file and none of the package's. Take "
            "GroundingDINO_SwinT_OGC.py or GroundingDINO_SwinB_cfg.py."
        )

    def _weights(self) -> LocalWeights:
        return find_weights(self.config.model, self.config.revision, self.config.weights)

    def _text_weights(self) -> LocalWeights:
        return find_weights(self.config.text_model, None, "model.safetensors", ["config.json", "tokenizer*"])


def _package() -> Any:
    try:
        import groundingdino
    except ModuleNotFoundError as error:
        raise needs("groundingdino-py", "groundingdino") from error
    return groundingdino


def _built(described: Any) -> Any:
    from groundingdino.models import build_model

    from pixelvla_segment.large.bert import adapted_bert

    described.use_checkpoint = described.use_transformer_ckpt = False  # they only serve training
    with adapted_bert(), redirect_stdout(sys.stderr):  # the package prints
        return build_model(described)


def _check_names(model: Any, stored: dict[str, Tensor], file: Path) -> None:
    """Refuse a file that lacks weights; what it has too many are buffers of older versions, as the package allows."""
    missing = [name for name, _ in model.named_parameters() if name not in stored]
    # Layers share their heads: a name may be absent if the tensor is there under another one.
    known = {
        parameter.data_ptr() for name, parameter in model.named_parameters(remove_duplicate=False) if name in stored
    }
    missing = [name for name in missing if model.get_parameter(name).data_ptr() not in known]
    if missing:
        raise CheckpointError(
            f"{file} lacks {len(missing)} weights ({', '.join(missing[:3])}). Take weights and the option architecture "
            "from one and the same model."
        )
