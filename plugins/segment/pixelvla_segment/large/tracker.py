"""The tracker ``sam2``: SAM 2's memory of an object (Ravi et al. 2024) through transformers, image after image.

What lies further back than the model looks is forgotten, so that memory stays flat however long a video is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from pixelvla_segment.large.config import Sam2TrackerConfig
from pixelvla_segment.large.device import device_of, dtype_of
from pixelvla_segment.large.sam import check_image, upscaled
from pixelvla_segment.large.weights import SAFETENSORS, LocalWeights, find_weights
from pixelvla_segment.sizes import check_fits


class Sam2Tracker:
    """Follows one object; trackers of the same options share the model.

    Attributes:
        score: How sure the model is that the object is seen on the last image, in [0, 1].

    Raises:
        CheckpointError: the weights are not on this machine; says which command downloads them.
    """

    every_step = True

    def __init__(self, config: Sam2TrackerConfig | None = None) -> None:
        self.config = config or Sam2TrackerConfig()
        _weights(self.config)
        self.score = 1.0

    def identity(self) -> dict[str, Any]:
        """Return name, revision and hashes of the weights.

        Raises:
            CheckpointError: they are not on this machine; says which command downloads them.
        """
        return {"weights": _weights(self.config).identity()}

    def start(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Begin anew with the first image, uint8[H, W, 3], and the mask on it, bool[H, W].

        Raises:
            UserError: image and mask differ in size.
        """
        check_image(image)
        check_fits(image, mask)
        self._nothing = not mask.any()
        self.score = 1.0
        if self._nothing:
            return
        model, processor, device = _loaded(self.config)
        self._session = processor.init_video_session(inference_device=device, dtype=model.dtype)
        self._session.video_height, self._session.video_width = mask.shape
        processor.add_inputs_to_inference_session(self._session, frame_idx=0, obj_ids=1, input_masks=mask)
        self._index = 0
        self._look(image)

    def step(self, image: np.ndarray) -> np.ndarray:
        """Return the mask on the next image, bool[H, W]; empty if the object cannot be seen."""
        check_image(image)
        if self._nothing:
            return np.zeros(image.shape[:2], bool)
        logits, score = self._look(image)
        self.score = score
        return upscaled(logits, image.shape[:2])

    def _look(self, image: np.ndarray) -> tuple[Any, float]:
        import torch

        model, processor, device = _loaded(self.config)
        pixels = processor.video_processor(
            videos=[image[None]], input_data_format="channels_last", return_tensors="pt"
        ).pixel_values_videos[0]
        with torch.inference_mode():
            seen = model(
                inference_session=self._session, frame=pixels[0].to(device, model.dtype), frame_idx=self._index
            )
        forget(self._session, model.config, self._index)
        self._index += 1
        return seen.pred_masks[0, 0].float(), float(seen.object_score_logits.float().sigmoid().reshape(-1)[0])


def forget(session: Any, config: Any, last: int) -> None:
    """Drop images, and memories that are too old for the model to look at again; ``last`` is the image just seen."""
    session.processed_frames.clear()
    reach = max(config.num_maskmem, config.max_object_pointers_in_encoder)
    for outputs in session.output_dict_per_obj.values():
        memories = outputs["non_cond_frame_outputs"]
        for index in [index for index in memories if index <= last - reach]:
            del memories[index]


def _weights(config: Sam2TrackerConfig) -> LocalWeights:
    return find_weights(config.model, config.revision, SAFETENSORS, ["config.json"])


@lru_cache(maxsize=1)
def _loaded(config: Sam2TrackerConfig) -> tuple[Any, Any, Any]:
    """Model, processor and device."""
    from transformers import Sam2VideoModel, Sam2VideoProcessor

    folder, device = _weights(config).folder, device_of(config.device)
    model: Any = Sam2VideoModel.from_pretrained(folder, dtype=dtype_of(config.dtype), local_files_only=True)
    return model.to(device).eval(), Sam2VideoProcessor.from_pretrained(folder, local_files_only=True), device
