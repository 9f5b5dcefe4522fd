"""The segmenter ``sam2``: SAM 2 (Ravi et al. 2024) through its authors' package.

Images go through ``SAM2ImagePredictor.set_image_batch``. Its ``predict_batch`` decodes image by image; here the objects
of all images are decoded together, by the same calls of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_segment.large.config import Sam2Config
from pixelvla_segment.large.device import device_of, dtype_of
from pixelvla_segment.large.sam import Network, Queries, Sam
from pixelvla_segment.large.weights import LocalWeights, find_weights, needs

if TYPE_CHECKING:
    from torch import Tensor

STABLE = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""What the package's own ``build_sam2`` sets: a single mask that is not stable gives way to the best of three."""


class Sam2(Sam):
    """SAM 2."""

    config: Sam2Config

    def __init__(self, config: Sam2Config | None = None) -> None:
        super().__init__(config or Sam2Config())

    def weights(self) -> LocalWeights:
        if find_spec("sam2") is None:
            raise needs("sam2", "sam2")
        return find_weights(self.config.model, self.config.revision, "*.pt")

    def load(self) -> Network:
        return PackageNetwork(self.config, self.weights())


def sam2_package() -> Any:
    """Import the package sam2.

    It sets up hydra when imported, by a call that hydra 1.4 refuses; it does not where that was done before.

    Raises:
        UserError: it is not installed.
    """
    try:
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra

        if not GlobalHydra.instance().is_initialized():
            with warnings.catch_warnings(action="ignore"):  # one version asks for version_base, another forbids it
                initialize_config_module("sam2")
        import sam2
    except ModuleNotFoundError as error:
        raise needs("sam2", "sam2") from error
    return sam2


class PackageNetwork:
    """The package's predictor."""

    def __init__(self, config: Sam2Config, weights: LocalWeights) -> None:
        sam2_package()
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        model = build(config, weights).to(device_of(config.device), dtype_of(config.dtype))
        self.predictor = SAM2ImagePredictor(model)
        self.device, self.dtype = device_of(config.device), dtype_of(config.dtype)
        self.size = model.image_size
        self.mask_size = self.size // 4
        # The predictor takes for granted that images are 1024 pixels wide.
        self.predictor._bb_feat_sizes = [(self.size // stride,) * 2 for stride in (4, 8, 16)]

    def encode(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        import torch

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            self.predictor.set_image_batch([np.ascontiguousarray(image) for image in images])
        features = self.predictor._features
        self.predictor.reset_predictor()
        return [*features["high_res_feats"], features["image_embed"]]

    def decode(self, features: list[Tensor], queries: Queries, multimask: bool) -> tuple[Tensor, Tensor]:
        import torch

        model = self.predictor.model
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            sparse, dense = model.sam_prompt_encoder(points=_points(queries), boxes=None, masks=queries.masks)
            logits, scores, _, _ = model.sam_mask_decoder(
                image_embeddings=features[-1],
                image_pe=model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
                repeat_image=False,
                high_res_features=features[:-1],
            )
        return logits, scores


def _points(queries: Queries) -> tuple[Tensor, Tensor] | None:
    """A box is two points of a kind of their own, before the others."""
    import torch

    parts = []
    if queries.boxes is not None:
        corners = torch.tensor([[2, 3]], dtype=torch.int32, device=queries.boxes.device)
        parts.append((queries.boxes.reshape(-1, 2, 2), corners.repeat(len(queries.boxes), 1)))
    if queries.points is not None and queries.labels is not None:
        parts.append((queries.points, queries.labels))
    if not parts:
        return None
    points, labels = zip(*parts, strict=True)
    return torch.cat(points, 1), torch.cat(labels, 1)


def build(config: Sam2Config, weights: LocalWeights) -> Any:
    """Build the model and read its weights, every one of them.

    Raises:
        CheckpointError: the weights' file does not fit the architecture.
    """
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    file = architecture_file(config, weights)
    described = OmegaConf.merge(OmegaConf.load(file), {"model": {"sam_mask_decoder_extra_args": STABLE}})
    with warnings.catch_warnings(action="ignore"):  # hydra 1.4 speaks of every class that the description names
        model = instantiate(described.model, _recursive_=True)
    stored = weights.folder / weights.files[0]
    try:
        model.load_state_dict(torch.load(stored, map_location="cpu", weights_only=True)["model"])
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{stored} does not fit the model of {file.name} ({first}). Take weights and "
            "the option architecture from one and the same model."
        ) from error
    return model.eval()


def architecture_file(config: Sam2Config, weights: LocalWeights) -> Path:
    """Return the file that describes the model.

    Raises:
        UserError: it is not known, or not there.
    """
    package = sam2_package()
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    known = {checkpoint: described for described, checkpoint in HF_MODEL_ID_TO_FILENAMES.values()}
    name = config.architecture or known.get(weights.files[0], "")
    for path in (Path(name).expanduser(), Path(package.__path__[0]) / name):
        if name and path.is_file():
            return path
    raise UserError(
        f"The architecture {name!r} of {weights.folder / weights.files[0]} is no file and none of the package's. Set "
        f"the option architecture, such as {next(iter(known.values()))}."
    )
