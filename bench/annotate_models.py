"""How much batches gain in the annotation's large models: ``python -m bench.annotate_models``.

Segmentation (SAM 2.1 tiny, both packages) and detection (Grounding DINO tiny), each with random weights and against a
loop over the frames with the same package and the same model, as its documentation calls it. Frames are 224 x 224 with
a few boxes each, as a detector proposes them; texts come from eight objects. Models see them at half their usual side,
for a CPU. The loop over boxes encodes a frame for every box, the loop over frames encodes it once.

With ``--device cuda`` everything runs at full size, SAM 2 in bfloat16. To compare: SAM 2's authors publish 91.2
frames/s for their tiny and 39.5 for their large model, tracking videos with everything compiled on an A100.

Target: batched at least twice as fast as the loop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pixelvla_segment.large.config import GroundingDinoConfig, Sam2Config, Sam2HfConfig
from pixelvla_segment.large.detector import caption
from pixelvla_segment.large.grounding_dino import GroundingDino
from pixelvla_segment.large.sam2 import Sam2, sam2_package
from pixelvla_segment.large.sam2_hf import Sam2Hf

from bench.limits import waiter
from bench.report import Figure, Report, parser, publish
from bench.timing import Ratio, in_turn
from pixelvla_core.api import Box

TARGET = 2.0
OBJECTS = ("red cup", "blue bowl", "spoon", "eggplant", "yellow basket", "coke can", "apple", "drawer handle")
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        frames: In a batch. boxes: on each frame. side: of what SAM 2 sees. shorter: side of what Grounding DINO sees.
        rounds: How often. device: Where. dtype: Of SAM 2's weights.
    """

    frames: int
    boxes: int
    side: int
    shorter: int
    rounds: int
    device: str = "cpu"
    dtype: str = "float32"


CPU = Size(frames=4, boxes=4, side=512, shorter=400, rounds=3)
QUICK = Size(frames=2, boxes=2, side=256, shorter=256, rounds=2)
CUDA = Size(frames=16, boxes=8, side=1024, shorter=800, rounds=20, device="cuda", dtype="bfloat16")

Calls = dict[str, Callable[[], Any]]


def frames_of(size: Size) -> list[np.ndarray]:
    """Return frames of noise, uint8[224, 224, 3]."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (224, 224, 3), dtype=np.uint8) for _ in range(size.frames)]


def boxes_of(size: Size) -> list[np.ndarray]:
    """Return boxes for each frame, float[boxes, 4] in [0, 1]."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 0.6, (size.frames, size.boxes, 2))
    return [np.hstack([corner, corner + 0.3]) for corner in corners]


def package_calls(size: Size, folder: Path) -> Calls:
    """SAM 2 by its authors' package."""
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    source = Path(sam2_package().__path__[0]) / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    described = OmegaConf.merge(OmegaConf.load(source), {"model": {"image_size": size.side}})
    OmegaConf.save(described, folder / "model.yaml")
    torch.save({"model": instantiate(described.model, _recursive_=True).state_dict()}, folder / "model.pt")
    config = Sam2Config(str(folder), None, size.device, size.dtype, architecture=str(folder / "model.yaml"))
    part = Sam2(config)
    return segmenting(part, part.load().predictor, size)


def segmenting(part: Sam2, predictor: Any, size: Size) -> Calls:
    """The batch, the loop over frames, and the loop over frames and boxes."""
    import torch

    frames, boxes = frames_of(size), boxes_of(size)
    objects = [[[Box(*map(float, box))] for box in these] for these in boxes]
    cast = torch.autocast(size.device, torch.bfloat16, enabled=size.dtype == "bfloat16")

    def loop(again: bool) -> None:
        with torch.inference_mode(), cast:
            for frame, these in zip(frames, boxes, strict=True):
                for number, box in enumerate(these):
                    if again or not number:
                        predictor.set_image(frame)
                    predictor.predict(box=box * 224, multimask_output=False)

    return {
        "batch": lambda: part.segment_batch(frames, objects),
        "frames": lambda: loop(False),
        "boxes": lambda: loop(True),
    }


def transformers_calls(size: Size, folder: Path) -> Calls:
    """SAM 2 by transformers."""
    import torch
    from transformers import Sam2Config as Architecture
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    described = Architecture()
    described.vision_config.backbone_config.image_size = [size.side, size.side]
    described.vision_config.backbone_feature_sizes = [[size.side // stride] * 2 for stride in (4, 8, 16)]
    described.prompt_encoder_config.image_size = size.side
    Sam2Model(described).save_pretrained(folder)
    side = {"height": size.side, "width": size.side}
    mask = {"height": size.side // 4, "width": size.side // 4}
    processor = Sam2Processor(Sam2ImageProcessor(size=side, mask_size=mask))
    processor.save_pretrained(folder)
    part = Sam2Hf(Sam2HfConfig(str(folder), None, size.device, size.dtype))
    model = part.network.model  # type: ignore[attr-defined]
    frames, boxes = frames_of(size), boxes_of(size)
    objects = [[[Box(*map(float, box))] for box in these] for these in boxes]

    def loop(groups: Callable[[np.ndarray], list[np.ndarray]]) -> None:
        with torch.inference_mode():
            for frame, these in zip(frames, boxes, strict=True):
                for group in groups(these * 224):
                    asked = processor(images=frame, input_boxes=[group.tolist()], return_tensors="pt")
                    asked["pixel_values"] = asked["pixel_values"].to(model.dtype)
                    made = model(**asked.to(size.device), multimask_output=False)
                    processor.post_process_masks(made.pred_masks.float().cpu(), asked["original_sizes"].cpu())

    return {
        "batch": lambda: part.segment_batch(frames, objects),
        "frames": lambda: loop(lambda these: [these]),
        "boxes": lambda: loop(lambda these: [box[None] for box in these]),
    }


def detector_calls(size: Size, folder: Path) -> Calls:
    """Grounding DINO by transformers."""
    import torch
    from transformers import (
        BertTokenizerFast,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )
    from transformers import GroundingDinoConfig as Architecture

    GroundingDinoForObjectDetection(Architecture()).save_pretrained(folder)
    words = [SPECIAL.get(place, f"[unused{place}]") for place in range(1100)]
    for place, word in enumerate(sorted({word for name in OBJECTS for word in name.split()}), 1):
        words[place] = word
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": size.shorter, "longest_edge": 2 * size.shorter}),
        BertTokenizerFast(vocab_file=str(folder / "vocab.txt")),
    )
    processor.save_pretrained(folder)
    part = GroundingDino(GroundingDinoConfig(model=str(folder), device=size.device))
    model = GroundingDinoForObjectDetection.from_pretrained(folder).to(size.device).eval()
    frames, texts = frames_of(size), [OBJECTS[number % len(OBJECTS)] for number in range(size.frames)]

    def loop() -> None:
        with torch.inference_mode():
            for frame, text in zip(frames, texts, strict=True):
                asked = processor(images=frame, text=caption(text), return_tensors="pt").to(size.device)
                processor.post_process_grounded_object_detection(model(**asked), asked["input_ids"])

    return {"batch": lambda: part.detect(frames, texts), "frames": loop}


MODELS: dict[str, Callable[[Size, Path], Calls]] = {
    "SAM 2.1 tiny, package sam2": package_calls,
    "SAM 2.1 tiny, transformers": transformers_calls,
    "Grounding DINO tiny, transformers": detector_calls,
}
LOOPS = {"frames": "a loop over frames", "boxes": "a loop over frames and boxes"}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for random weights."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def measure(size: Size) -> Report:
    """Measure every model; the first loop's target is the issue's."""
    import torch

    figures, details, notes = [], {}, []
    for name, calls_of in MODELS.items():
        with scratch() as folder:
            torch.manual_seed(0)
            timings = in_turn(calls_of(size, folder), size.rounds, waiter(size.device))
        details[name] = timings.summary("batch")
        rate = size.frames / details[name]["batch"]["median_s"]
        figures.append(Figure(what=f"{name}: batched", value=rate, unit=" frames/s"))
        for loop in [loop for loop in LOOPS if loop in timings.wall]:
            ratio = Ratio.of(timings.ratios(loop, "batch"))
            what = f"{name}: batched over {LOOPS[loop]}"
            figures.append(ratio.figure(lambda value: value, what=what, unit="x", at_least=TARGET))
    notes.append(f"{size}")
    return Report(figures=figures, details=details, notes=notes)


def main() -> None:
    import torch

    arguments = parser(__doc__)
    arguments.add_argument("--device", default="cpu", help="cuda measures full sizes")
    args = arguments.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        publish(Report(skipped="there is no CUDA device"), args.json)
        return
    torch.set_num_threads(1)
    publish(measure(QUICK if args.quick else CPU if args.device == "cpu" else CUDA), args.json)


if __name__ == "__main__":
    main()
