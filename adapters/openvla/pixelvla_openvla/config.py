"""What describes an OpenVLA: the `config.json` of a checkpoint folder. Importing this needs no torch.

Source: the official `config.json` (openvla/openvla, MIT). `text_config` is stored as a difference against the defaults
that `LlamaConfig` had then, so those defaults are written out here instead of being taken from the installed version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pixelvla_core.api import CheckpointError, UserError
from pixelvla_core.errors import suggest

LLAMA_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
}
# Keys that say how a file was stored or run, not what the network is.
STORAGE_KEYS = {"torch_dtype", "dtype", "architectures", "_name_or_path", "transformers_version", "use_cache"}

DINOV2_L = "vit_large_patch14_reg4_dinov2.lvd142m"
TIMM_IDS: Mapping[str, tuple[str, ...]] = {
    "dinov2-vit-l": (DINOV2_L,),
    "siglip-vit-so400m": ("vit_so400m_patch14_siglip_224",),
    "siglip-vit-so400m-384px": ("vit_so400m_patch14_siglip_384",),
    "dinosiglip-vit-so-224px": (DINOV2_L, "vit_so400m_patch14_siglip_224"),
    "dinosiglip-vit-so-384px": (DINOV2_L, "vit_so400m_patch14_siglip_384"),
}
LLAMA_EMPTY_TOKEN = 29871  # the lone sentencepiece space that stands between "Out:" and the first action id


@dataclass(frozen=True)
class OpenVLAConfig:
    """Options of the backbone `openvla`.

    Attributes:
        revision: Branch, tag or commit on the hub.
        cameras: In the order in which their patches stand in the prefix.
        unnorm_key: The data set that says how many dimensions an action has, where the checkpoint's data sets differ.
    """

    revision: str | None = None
    cameras: tuple[str, ...] = ("front",)
    unnorm_key: str | None = None

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras is {list(self.cameras)}; expected at least one name, each only once")


@dataclass(frozen=True)
class Tower:
    """One vision tower: a timm model id, or the keyword arguments of timm's VisionTransformer."""

    image_size: int
    timm_id: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    act_layer: str | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a Prismatic VLA, read from the `config.json` of a checkpoint.

    Attributes:
        towers: One or two vision towers, in the order in which their features are concatenated.
        text: All arguments of the Llama, the defaults filled in.
        vocab_size: Ids below this are text and actions; those from here to `text["vocab_size"]` are padding.
        action_bins: Number of action ids, the last ones below `vocab_size`.
        empty_token_id: Id that always precedes the action ids.
        raw: The dictionary all of this came from, kept so that saving loses nothing.
    """

    towers: tuple[Tower, ...]
    text: Mapping[str, Any]
    vocab_size: int
    action_bins: int
    empty_token_id: int
    pad_token_id: int
    resize: str
    prompt_style: str
    raw: Mapping[str, Any]

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read a `config.json`.

        Raises:
            CheckpointError: it does not describe an OpenVLA, or one of the values cannot be.
        """
        if raw.get("model_type") != "openvla":
            raise CheckpointError(
                f"config.json has model_type {raw.get('model_type')!r}, not 'openvla'. Give the folder of an OpenVLA "
                "checkpoint in the Hugging Face layout (the one that openvla/openvla-7b has)."
            )
        with usable("config.json"):
            return cls._read(raw)

    @classmethod
    def _read(cls, raw: Mapping[str, Any]) -> ModelConfig:
        text = _text(raw)
        vocab_size = _whole(text, "vocab_size") - _whole(raw, "pad_to_multiple_of", 64)
        _whole(text, "eos_token_id")
        return cls(
            towers=_towers(raw),
            text=text,
            vocab_size=vocab_size,
            action_bins=_whole(raw, "n_action_bins", 256),
            empty_token_id=_empty_token(raw, vocab_size),
            pad_token_id=_whole(raw, "pad_token_id", 32000),
            resize=str(raw.get("image_resize_strategy", "resize-naive")),
            prompt_style="vicuna" if "vicuna" in str(raw.get("llm_backbone_id", "")) else "pure",
            raw=dict(raw),
        )

    @property
    def image_size(self) -> int:
        """Side of the square image that every tower reads, in pixels."""
        return self.towers[0].image_size

    @property
    def eos_token_id(self) -> int:
        """The id that ends an answer in training."""
        return int(self.text["eos_token_id"])


@contextmanager
def usable(file: str) -> Iterator[None]:
    """Turn what libraries raise over a value that cannot be into one clear paragraph about the file it is from."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # timm, transformers, torch and Python itself raise many kinds
        words = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(
            f"No model can be made from {file}: {type(error).__name__}: {words}. Correct the value, or copy the file "
            "from the checkpoint's repository again."
        ) from error


def _whole(values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"config.json has {key} {value!r}; expected a whole number. Correct it.")
    return value


def _text(raw: Mapping[str, Any]) -> dict[str, Any]:
    described = raw.get("text_config") or {}
    if not isinstance(described, Mapping):
        raise CheckpointError(f"config.json has text_config {described!r}; expected the Llama's values by name.")
    given = {k: v for k, v in described.items() if k not in STORAGE_KEYS}
    if given.pop("model_type", "llama") != "llama":
        raise CheckpointError(f"The language model is {raw['text_config']['model_type']!r}; only 'llama' is supported.")
    if given.get("tie_word_embeddings"):
        raise CheckpointError(
            "text_config ties lm_head to the embeddings; no OpenVLA checkpoint does, so it is refused."
        )
    return {**LLAMA_DEFAULTS, **given}


def _towers(raw: Mapping[str, Any]) -> tuple[Tower, ...]:
    described = raw.get("towers")
    if described:
        if not isinstance(described, list) or not all(isinstance(tower, Mapping) for tower in described):
            raise CheckpointError(
                f"config.json has towers {described!r}; expected one or two sets of arguments of timm's "
                "VisionTransformer."
            )
        sizes = _sizes(raw, len(described))
        return tuple(Tower(size, kwargs=dict(kwargs)) for size, kwargs in zip(sizes, described, strict=True))
    ids = raw.get("timm_model_ids") or _known_ids(str(raw.get("vision_backbone_id")))
    acts = raw.get("timm_override_act_layers") or [None] * len(ids)
    return tuple(Tower(s, timm_id=i, act_layer=a) for s, i, a in zip(_sizes(raw, len(ids)), ids, acts, strict=True))


def _known_ids(backbone_id: str) -> tuple[str, ...]:
    if backbone_id not in TIMM_IDS:
        raise CheckpointError(
            f"config.json names the vision backbone {backbone_id!r}, which is not one of {', '.join(TIMM_IDS)}."
            f"{suggest(backbone_id, TIMM_IDS)} Say in config.json which timm models it is (`timm_model_ids`), or "
            "describe them (`towers`, arguments of timm's VisionTransformer)."
        )
    return TIMM_IDS[backbone_id]


def _sizes(raw: Mapping[str, Any], towers: int) -> list[int]:
    sizes = raw.get("image_sizes") or [224] * towers
    if not isinstance(sizes, list) or not all(isinstance(size, int) for size in sizes):
        raise CheckpointError(f"config.json has image_sizes {sizes!r}; expected one number of pixels per vision tower.")
    if towers not in (1, 2) or len(sizes) != towers or len(set(sizes)) != 1:
        raise CheckpointError(
            f"config.json has {towers} vision towers and image_sizes {sizes}; an OpenVLA has one or two towers that "
            "read images of one size. Correct `image_sizes` and `timm_model_ids` or `towers`."
        )
    return sizes


def _empty_token(raw: Mapping[str, Any], vocab_size: int) -> int:
    token = _whole(raw, "empty_token_id", LLAMA_EMPTY_TOKEN)
    if not 0 <= token < vocab_size:
        raise CheckpointError(
            f"The id that precedes the action ids is {token}, but the vocabulary has {vocab_size} ids. Set "
            "`empty_token_id` in config.json to the id that this checkpoint's tokenizer gives to a lone space."
        )
    return token
