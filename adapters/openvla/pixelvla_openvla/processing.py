"""From a camera image and an instruction to what the model reads.

H, W image height and width. Source: the official `PrismaticImageProcessor` and prompt builders (openvla/openvla, MIT);
what was checked against them is in docs/openvla.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelvla_core.api import Affine, CheckpointError, check_image, read_json

from .config import ModelConfig

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESIZES = ("resize-naive", "letterbox")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")

PROMPTS: Mapping[str, str] = {
    "pure": "In: What action should the robot take to {}?\nOut:",
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: What action should the robot take "
        "to {}? ASSISTANT:"
    ),
}


@dataclass(frozen=True)
class ImageProcessor:
    """Resize once, normalise once per tower, stack on the channel axis.

    Attributes:
        size: Side of the square that the towers read, in pixels.
        resize: "resize-naive" squashes, "letterbox" pads to a square first.
        norms: Mean and standard deviation per channel, for each tower.
    """

    size: int
    resize: str
    norms: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise CheckpointError(
                f"The checkpoint resizes images by {self.resize!r}; supported are {' and '.join(RESIZES)}. Correct "
                "`image_resize_strategy` if it is misspelt."
            )

    def __call__(self, image: np.ndarray | Image.Image) -> Tensor:
        """Return float32[3 * towers, size, size] from RGB uint8[H, W, 3] or a PIL image."""
        picture = as_picture(image)
        if self.resize == "letterbox":
            picture = self._pad(picture)
        small = picture.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels_3HW = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        return torch.cat([(pixels_3HW - _column(mean)) / _column(std) for mean, std in self.norms])

    def geometry(self, width: int, height: int) -> Affine:
        """Return the map from the given image's coordinates to those of the image that the towers read."""
        if self.resize != "letterbox":
            return Affine()
        x, y = _margins(width, height)
        wide, high = width + 2 * x, height + 2 * y
        return Affine(width / wide, height / high, x / wide, y / high)

    def _pad(self, picture: Image.Image) -> Image.Image:
        x, y = _margins(*picture.size)
        fill = tuple(int(value * 255) for value in self.norms[-1][0])  # upstream: the last tower's mean, for both
        padded = Image.new("RGB", (picture.width + 2 * x, picture.height + 2 * y), fill)
        padded.paste(picture, (x, y))
        return padded

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `preprocessor_config.json`."""
        towers = len(self.norms)
        return {
            "image_processor_type": "PrismaticImageProcessor",
            "image_resize_strategy": self.resize,
            "input_sizes": [[3, self.size, self.size]] * towers,
            "interpolations": ["bicubic"] * towers,
            "means": [list(mean) for mean, _ in self.norms],
            "stds": [list(std) for _, std in self.norms],
            "use_fused_vision_backbone": towers == 2,
        }

    @classmethod
    def load(cls, folder: Path | None, config: ModelConfig) -> ImageProcessor:
        """Read `preprocessor_config.json`, or fall back on what the towers were trained with where there is none.

        Raises:
            CheckpointError: the file contradicts config.json.
        """
        path = None if folder is None else folder / "preprocessor_config.json"
        if path is None or not path.is_file():
            return cls(config.image_size, config.resize, _default_norms(config))
        given = read_json(path)
        sizes = [list(size) for size in given.get("input_sizes", [])]
        if sizes != [[3, config.image_size, config.image_size]] * len(config.towers):
            raise CheckpointError(
                f"{path} makes images of sizes {sizes}, but config.json describes {len(config.towers)} towers that "
                f"read {config.image_size} pixels. Take both files from one checkpoint."
            )
        if set(given.get("interpolations", ["bicubic"])) != {"bicubic"}:
            raise CheckpointError(f"{path} asks for {given['interpolations']}; only bicubic is supported.")
        norms = tuple((tuple(m), tuple(s)) for m, s in zip(given["means"], given["stds"], strict=True))
        return cls(config.image_size, given.get("image_resize_strategy", config.resize), norms)


def as_picture(image: np.ndarray | Image.Image) -> Image.Image:
    """Return an RGB picture.

    Raises:
        UserError: the array is not uint8[H, W, 3].
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    check_image(image)
    return Image.fromarray(image)


def _margins(width: int, height: int) -> tuple[int, int]:
    side = max(width, height)
    return (side - width) // 2, (side - height) // 2


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _default_norms(config: ModelConfig) -> tuple:
    first = config.towers[0].timm_id or ""
    return (IMAGENET, HALF) if len(config.towers) == 2 else ((HALF if "siglip" in first else IMAGENET),)


def prompt_text(instruction: str, style: str = "pure") -> tuple[str, int, int]:
    """Return the prompt and where in it the (lower-cased) instruction begins and ends.

    Args:
        style: "pure" for openvla-7b, "vicuna" for the v0.1 checkpoints.
    """
    words = instruction.lower()
    template = PROMPTS[style]
    begin = template.index("{}")
    return template.format(words), begin, begin + len(words)


class PromptTokenizer:
    """Prompts as ids: BOS, the prompt, and the empty id behind which the answer begins.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
        config: Says the style of the prompt and the special ids.
    """

    def __init__(self, tokenizer: Any, config: ModelConfig) -> None:
        self.tokenizer = tokenizer
        self.bos = int(config.text["bos_token_id"])
        self.empty = config.empty_token_id
        self.style = config.prompt_style
        if tokenizer.get_vocab_size() > config.vocab_size + 1:  # the official one adds <PAD> behind its vocabulary
            raise CheckpointError(
                f"The tokenizer has {tokenizer.get_vocab_size()} ids, but the model's text and actions end at "
                f"{config.vocab_size}. Take the tokenizer that belongs to this checkpoint."
            )

    def __call__(self, instruction: str) -> tuple[list[int], list[bool]]:
        """Return the ids of the prompt for one instruction, and which of them carry the instruction."""
        text, begin, end = prompt_text(instruction, self.style)
        encoding = self.tokenizer.encode(text)
        ids = list(encoding.ids)
        inside = [first < end and last > begin for first, last in encoding.offsets]
        if not ids or ids[0] != self.bos:
            ids, inside = [self.bos, *ids], [False, *inside]
        inside[0] = False
        return [*ids, self.empty], [*inside, False]


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in a checkpoint's folder or in `tokenizer/` inside it."""
    return _tokenizer_file(folder) is not None


def _tokenizer_file(folder: Path) -> Path | None:
    files = [place / name for place in (folder, folder / "tokenizer") for name in TOKENIZER_FILES]
    return next((file for file in files if file.is_file()), None)


def load_tokenizer(folder: Path, config: ModelConfig) -> PromptTokenizer:
    """Load the tokenizer that lies in a checkpoint's folder, or in `tokenizer/` inside it.

    Raises:
        CheckpointError: none is there; the message names the files.
    """
    file = _tokenizer_file(folder)
    if file is None:
        raise CheckpointError(
            f"{folder} has no tokenizer: neither {' nor '.join(TOKENIZER_FILES)} is there or in {folder / 'tokenizer'}."
            " Copy one of them from the checkpoint's repository (openvla/openvla-7b has both)."
        )
    try:
        return PromptTokenizer(_read_tokenizer(file), config)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"{file} cannot be read ({error}). Download or copy it again.") from error


def _read_tokenizer(file: Path) -> Any:
    if file.name == "tokenizer.json":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(file))
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(file.parent).backend_tokenizer
