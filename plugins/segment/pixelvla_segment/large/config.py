"""Options of the parts with large models. Imports nothing heavy.

``model`` is always a folder or an id on the Hugging Face hub whose files were downloaded before; ``device`` is "auto"
(CUDA if there is one), or a device by PyTorch's name; ``dtype`` is the type of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DTYPES = ("float32", "bfloat16", "float16")


def _check_where(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")


def _check_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")


def _check_share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; expected 0 to 1")


@dataclass(frozen=True)
class SamConfig:
    """Options that all segmenters of the SAM 2 family have.

    Attributes:
        line_points: Points, evenly spread, that stand for a line, for the models know no lines.
        multimask: Whether three masks are made for a single point, of which the surest is taken; a point leaves open
            whether a thing or a part of it is meant.
        objects_at_once: Masks that are decoded together; what a batch of images may need at most beyond the images.
        images_at_once: Images that are encoded together; 0 for all of them, but one on a CPU.
    """

    model: str = "facebook/sam2.1-hiera-large"
    revision: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    line_points: int = 5
    multimask: bool = True
    objects_at_once: int = 32
    images_at_once: int = 0

    def __post_init__(self) -> None:
        _check_where(self.dtype)
        _check_at_least_one(line_points=self.line_points, objects_at_once=self.objects_at_once)


@dataclass(frozen=True)
class Sam2Config(SamConfig):
    """Options of the segmenter ``sam2``.

    Attributes:
        architecture: The package's configuration, such as "configs/sam2.1/sam2.1_hiera_t.yaml", or a file of that
            kind; known for Meta's models.
    """

    architecture: str = ""


@dataclass(frozen=True)
class Sam2HfConfig(SamConfig):
    """Options of the segmenter ``sam2_hf``."""


@dataclass(frozen=True)
class Sam2TinyConfig(Sam2HfConfig):
    """Options of the segmenter ``sam2-tiny``."""

    model: str = "facebook/sam2.1-hiera-tiny"


@dataclass(frozen=True)
class EdgeTamConfig(SamConfig):
    """Options of the segmenter ``edgetam``."""

    model: str = "yonigozlan/EdgeTAM-hf"


@dataclass(frozen=True)
class FastSamConfig:
    """Options of the segmenter ``fastsam``.

    Attributes:
        weights: The file FastSAM-s.pt or FastSAM-x.pt.
        size: Side in pixels to which images are scaled.
        confidence: What is less sure is no object. overlap: above which two masks count as one.
        line_points: Points, evenly spread, that stand for a line.
    """

    weights: str = "FastSAM-s.pt"
    device: str = "auto"
    size: int = 1024
    confidence: float = 0.4
    overlap: float = 0.9
    line_points: int = 5

    def __post_init__(self) -> None:
        _check_at_least_one(size=self.size, line_points=self.line_points)
        _check_share(confidence=self.confidence, overlap=self.overlap)


@dataclass(frozen=True)
class Sam2TrackerConfig:
    """Options of the tracker ``sam2``."""

    model: str = "facebook/sam2.1-hiera-large"
    revision: str | None = None
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_where(self.dtype)


@dataclass(frozen=True)
class DetectorConfig:
    """Options that both detectors have.

    Attributes:
        threshold: Boxes that the model is less sure of are dropped.
        text_threshold: A box is dropped unless it fits a word of the text at least so well.
        overlap: Of two boxes with a greater intersection over union the surer one is kept; 1 keeps both.
        most: Boxes that are kept for an image.
        images_at_once: Images that the model is given together; 0 for all of them, but one on a CPU.
    """

    revision: str | None = None
    device: str = "auto"
    threshold: float = 0.3
    text_threshold: float = 0.25
    overlap: float = 0.9
    most: int = 20
    images_at_once: int = 0

    def __post_init__(self) -> None:
        _check_share(threshold=self.threshold, text_threshold=self.text_threshold, overlap=self.overlap)
        _check_at_least_one(most=self.most)


@dataclass(frozen=True)
class GroundingDinoConfig(DetectorConfig):
    """Options of the detector ``grounding_dino``.

    Attributes:
        texts: Encodings of texts that are kept, for the same objects are named again and again.
    """

    model: str = "IDEA-Research/grounding-dino-base"
    dtype: str = "float32"
    texts: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_where(self.dtype)
        if self.texts < 0:
            raise ValueError(f"texts is {self.texts}; expected at least 0")


@dataclass(frozen=True)
class GroundingDinoPyConfig(DetectorConfig):
    """Options of the detector ``groundingdino_py``.

    Attributes:
        weights: Name of the weights' file in the model's folder.
        architecture: The package's configuration, or a file of that kind, which is Python and is run.
        text_model: The text encoder's tokeniser and configuration.
        size: Pixels of an image's shorter side, as the model sees it. longest: of its longer side, at most.
    """

    model: str = "ShilongLiu/GroundingDINO"
    weights: str = "groundingdino_swint_ogc.pth"
    architecture: str = "GroundingDINO_SwinT_OGC.py"
    text_model: str = "google-bert/bert-base-uncased"
    size: int = 800
    longest: int = 1333

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_at_least_one(size=self.size, longest=self.longest)


@dataclass(frozen=True)
class Seed:
    """Where the gripper is as it closes in one episode: ``point`` [x, y] or ``box`` [x0, y0, x1, y1], in [0, 1]."""

    episode: int = 0
    point: list[float] = field(default_factory=list)
    box: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (len(self.point), len(self.box)) not in ((2, 0), (0, 4)):
            raise ValueError(
                f"the seed of episode {self.episode} has the point {self.point} and the box {self.box}; expected "
                "either point: [x, y] or box: [x0, y0, x1, y1]"
            )


@dataclass(frozen=True)
class VideoConfig:
    """Options of the gripper finder ``video``.

    Attributes:
        seeds: Where the gripper is in a few episodes; best one for each robot or camera position.
        text: What the detector looks for where no seed helps; "" never asks it.
        largest: Greatest share of the image that a gripper covers.
        jump: Factor by which its area may change from one image to the next.
        least_score: A mask that the tracker is less sure of is lost.
    """

    seeds: list[Seed] = field(default_factory=list)
    text: str = "robot gripper"
    largest: float = 0.35
    jump: float = 4.0
    least_score: float = 0.5

    def __post_init__(self) -> None:
        _check_share(largest=self.largest, least_score=self.least_score)
        if not self.jump > 1:
            raise ValueError(f"jump is {self.jump}; expected more than 1")
        if not self.seeds and not self.text:
            raise ValueError("there are neither seeds nor a text; expected at least one of them")
