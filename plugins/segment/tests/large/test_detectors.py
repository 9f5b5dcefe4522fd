"""Grounding DINO from both packages against the packages' own calls, one image at a time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pixelvla_segment.large.config import GroundingDinoConfig, GroundingDinoPyConfig
from pixelvla_segment.large.detector import caption
from pixelvla_segment.large.grounding_dino import GroundingDino

from pixelvla_core.annotate.models import Detector
from pixelvla_core.api import UserError

TEXTS = ["red cup", "robot gripper", "Red cup.", "the blue drawer"]
ALL = {"threshold": 0.0, "text_threshold": 0.0, "overlap": 1.0, "most": 100, "device": "cpu", "images_at_once": 16}


@pytest.fixture(scope="module")
def detector(grounding_dino_folder):
    return GroundingDino(GroundingDinoConfig(model=str(grounding_dino_folder), **ALL))


def table(detections) -> np.ndarray:
    rows = [(each.score, each.box.x0, each.box.y0, each.box.x1, each.box.y1) for each in detections]
    return np.array(sorted(rows, reverse=True))


def own_table(folder: Path, image: np.ndarray, text: str) -> np.ndarray:
    """What the package's own model and processor make of one image."""
    from transformers import AutoProcessor, GroundingDinoForObjectDetection

    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=image, text=caption(text), return_tensors="pt")
    with torch.inference_mode():
        made = model(**inputs)
    own = processor.post_process_grounded_object_detection(made, inputs["input_ids"], threshold=0.0, text_threshold=0.0)
    boxes = own[0]["boxes"].clamp(0, 1)
    rows = torch.cat([own[0]["scores"][:, None], boxes], 1).double().numpy()
    rows = rows[(rows[:, 1] < rows[:, 3]) & (rows[:, 2] < rows[:, 4])]
    return rows[np.lexsort(rows.T[::-1])[::-1]]


def test_a_batch_gives_what_the_package_gives_for_each_image(detector, grounding_dino_folder, images):
    assert isinstance(detector, Detector)
    found = detector.detect(images, TEXTS)
    for image, text, detections in zip(images, TEXTS, found, strict=True):
        own = own_table(grounding_dino_folder, image, text)
        assert len(own) > 10
        np.testing.assert_allclose(table(detections), own, atol=1e-4)


def test_texts_that_were_seen_before_change_nothing(detector, images):
    first = [table(each) for each in detector.detect(images, TEXTS)]
    encoder = detector.loaded[0].model.text_backbone
    kept = len(encoder.kept)
    again = [table(each) for each in detector.detect(images, TEXTS)]
    assert kept == len(encoder.kept)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_few_encodings_are_kept(grounding_dino_folder, images):
    detector = GroundingDino(GroundingDinoConfig(model=str(grounding_dino_folder), texts=1, **ALL))
    found = detector.detect([images[0]] * 3, ["red cup", "gripper", "red cup"])
    np.testing.assert_allclose(table(found[0]), table(found[2]), atol=1e-5)
    assert len(detector.loaded[0].model.text_backbone.kept) == 1


def test_thresholds_order_and_overlap(detector, grounding_dino_folder, images):
    everything = detector.detect([images[0]], ["red cup"])[0]
    middle = float(np.median([each.score for each in everything]))
    options = ALL | {"threshold": middle, "overlap": 0.3, "most": 3}
    fewer = GroundingDino(GroundingDinoConfig(model=str(grounding_dino_folder), **options))
    found = fewer.detect([images[0]], ["red cup"])[0]
    scores = [each.score for each in found]
    assert 0 < len(found) <= 3
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > middle


def test_no_text_finds_nothing_and_wrong_images_are_refused(detector, images):
    found = detector.detect(images[:2], ["", "red cup"])
    assert not found[0]
    assert found[1]
    with pytest.raises(UserError, match="expected uint8"):
        detector.detect([images[0][..., 0]], ["red cup"])


@pytest.fixture(scope="module")
def authors_folder(tmp_path_factory, tokenizer_folder) -> Path:
    """The authors' model, small, with random weights; arch.py and w.pth."""
    package = pytest.importorskip("groundingdino")
    from groundingdino.util.slconfig import SLConfig
    from pixelvla_segment.large.groundingdino_py import _built
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("authors")
    torch.manual_seed(0)
    text = BertConfig(
        vocab_size=1100, hidden_size=768, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    BertModel(text).save_pretrained(folder)
    for file in tokenizer_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    source = (Path(package.__path__[0]) / "config" / "GroundingDINO_SwinT_OGC.py").read_text(encoding="utf-8")
    for name, value in {"enc_layers": 1, "dec_layers": 1, "dim_feedforward": 32, "num_queries": 20}.items():
        source = re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
    (folder / "arch.py").write_text(source, encoding="utf-8")
    described = SLConfig.fromfile(str(folder / "arch.py"))
    described.device, described.text_encoder_type = "cpu", str(folder)
    torch.save({"model": _built(described).state_dict()}, folder / "w.pth")
    return folder


def test_the_authors_package_runs_in_batches_as_it_does_alone(authors_folder, images):
    from groundingdino.util.inference import predict
    from pixelvla_segment.large.groundingdino_py import GroundingDinoPy

    config = GroundingDinoPyConfig(
        model=str(authors_folder),
        weights="w.pth",
        architecture=str(authors_folder / "arch.py"),
        text_model=str(authors_folder),
        size=96,
        longest=160,
        **ALL,
    )
    detector = GroundingDinoPy(config)
    assert set(detector.identity()) == {"weights", "text_weights"}
    for image, text, detections in zip(images, TEXTS, detector.detect(images, TEXTS), strict=True):
        boxes, scores, _ = predict(detector.model, detector._pixels(image), text, 0.0, 0.0, "cpu")
        corners = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2]).clip(0, 1)
        own = np.array(sorted(np.hstack([scores[:, None], corners]).tolist(), reverse=True))
        np.testing.assert_allclose(table(detections), own, atol=1e-4)


def test_the_authors_text_encoder_gives_what_transformers_gives(authors_folder):
    from groundingdino.models.GroundingDINO.bertwarper import BertModelWarper
    from pixelvla_segment.large.bert import adapt
    from transformers import BertModel

    bert = BertModel.from_pretrained(authors_folder).eval()
    tokens = torch.tensor([[101, 1, 3, 1012, 102], [101, 4, 1012, 102, 0]])
    blocks = torch.eye(5, dtype=torch.bool).repeat(2, 1, 1)
    blocks[:, 1:4, 1:4] = True
    with torch.inference_mode():
        own = bert(tokens, attention_mask=blocks[:, None]).last_hidden_state
        mine = BertModelWarper(adapt(bert))(tokens, attention_mask=blocks)["last_hidden_state"]
    torch.testing.assert_close(mine, own, atol=1e-5, rtol=0)
