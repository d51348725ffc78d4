"""``swinv2_backbone.load``: where models come from, what they take, and what they return."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from small_predictor import CLASSES, write_images, write_model

import swinv2_backbone
from swinv2_backbone.d2.inference.model import Model
from swinv2_backbone.d2.inference.result import Result

SEMANTIC = "semantic_fpn_swinv2_tiny_ade20k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The output folder of a training: config, last and final weights."""
    found = tmp_path_factory.mktemp("output")
    write_model(found)
    (found / "model.pth").rename(found / "model_final.pth")
    return found


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return swinv2_backbone.load(folder, confidence=0.1, device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos"), 1, (40, 56))[0]


def same(one: Result, other: Result) -> bool:
    return len(one) == len(other) > 0 and np.array_equal(one.boxes, other.boxes)


def test_a_folder_a_checkpoint_and_a_config_mean_the_same_model(folder, model, photo):
    expected = model(str(photo))
    for source in (folder / "model_final.pth", folder / "config.yaml", str(folder)):
        assert same(swinv2_backbone.load(source, confidence=0.1, device="cpu")(photo), expected)


def test_the_best_weights_of_a_folder_come_first(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    shutil.copy(folder / "model_final.pth", tmp_path / "run/model_best.pth")
    found = swinv2_backbone.load(tmp_path / "run", device="cpu")
    assert found.weights == str(tmp_path / "run/model_best.pth")
    assert "model_best.pth; 3 classes: ant, bee, cat; on cpu, confidence 0.5" in repr(found)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("mask_rcnn_swin", {}, "or recipe 'mask_rcnn_swin'; similar recipes: mask_rcnn_swinv2"),
        ("mask_rcnn_swinv2_demo", {}, r"names no weights: load\('mask_rcnn_swinv2_demo', weights="),
        (".", {}, "has no config.yaml"),
        ("gone.pth", {}, "no checkpoint 'gone.pth'"),
        (None, {"confidence": 50}, "confidence is a score from 0 to 1, got 50"),
        (None, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (None, {"device": "cuda:77"}, "PyTorch finds . GPUs"),
        (None, {"device": "gpu"}, "device 'gpu'"),
        (None, {"device": "cpu", "half": True}, "half precision needs a GPU"),
    ],
)
def test_wrong_arguments_have_a_sentence(folder, tmp_path, monkeypatch, source, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        swinv2_backbone.load(folder if source is None else source, **options)


def test_every_kind_of_image_has_the_same_result(model, photo):
    expected, pixels = model(photo), np.asarray(Image.open(photo))
    assert expected.path == str(photo) and expected.size == (40, 56)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    images = [
        *(str(photo), Image.open(photo), pixels, pixels.astype(np.int64), pixels.astype(float)),
        *(tensor, tensor.float(), pixels.astype(np.uint16) * 257),
        Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])),  # with transparency
    ]
    for image in images:
        assert same(model(image), expected)
    assert all(same(one, expected) for one in model(images))
    assert same(model(pixels[:, :, ::-1], order="BGR"), expected)
    assert same(model(tensor.flip(0), order="BGR"), expected)
    assert np.array_equal(expected.image, pixels)


def test_gray_palette_and_turned_images_are_read_as_files_are(model, tmp_path, photo):
    gray = np.asarray(Image.open(photo).convert("L"))
    results = [model(one) for one in (gray, gray[:, :, None], torch.from_numpy(gray.copy()))]
    results.append(model(Image.fromarray(gray)))
    assert all(same(one, results[0]) for one in results)
    palette = Image.open(photo).convert("P")
    palette.save(tmp_path / "palette.png")
    assert same(model(palette), model(tmp_path / "palette.png"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert same(model(deep), results[0])
    exif = Image.Exif()
    exif[274] = 6
    Image.open(photo).save(tmp_path / "turned.png", exif=exif)
    turned = model(Image.open(tmp_path / "turned.png"))
    assert turned.size == (56, 40) and same(turned, model(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.full((4, 5, 3), 0.5), ValueError, "seems to be scaled to 0 ... 1: multiply it by 255"),
        (torch.rand(3, 4, 5), ValueError, "seems to be scaled to 0"),
        (
            np.full((4, 5, 3), -1.0),
            ValueError,
            "float64 from -1.0 to -1.0: pass it as it is before",
        ),
        (np.full((4, 5, 3), np.nan), ValueError, "from nan to nan"),
        (np.full((4, 5, 3), 300), ValueError, "int64 from 300 to 300"),
        (np.zeros((4, 5, 3), bool), ValueError, "got dtype bool"),
        (np.zeros((3, 4, 5), np.uint8), ValueError, "the channels seem to be on another axis"),
        (np.zeros((4, 5, 4), np.uint8), ValueError, "drop alpha"),
        (np.zeros((1, 4, 5, 3), np.uint8), ValueError, r"is a batch: pass list\(array\)"),
        (torch.zeros(1, 3, 4, 5), ValueError, r"is a batch: pass list\(tensor\)"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"got shape \(0, 5, 3\)"),
        (Image.new("F", (4, 5)), ValueError, "have no fixed range"),
        ("no.jpg", FileNotFoundError, "no file 'no.jpg'"),
        (".", ValueError, "is a folder: pass its files"),
        ("https://example.org/a.jpg", ValueError, "is an address: pass urls=True"),
        ({"image": 1}, TypeError, "or a list or an iterator of them, got dict"),
        ([3], TypeError, "not int"),
        (["no.jpg"], FileNotFoundError, "image 0: there is no file"),
    ],
)
def test_what_is_no_image_has_a_sentence(model, image, kind, message):
    with pytest.raises(kind, match=message):
        model(image)


def test_an_address_is_downloaded_if_asked(model, photo, monkeypatch):
    asked = []
    monkeypatch.setattr(
        model.predictor, "read", lambda path: asked.append(path) or np.zeros((8, 8, 3), np.uint8)
    )
    model("https://example.org/a.png", urls=True)
    assert asked == ["https://example.org/a.png"]


def test_lists_return_lists_and_iterators_stream(model, photo):
    expected = model(photo)
    assert [same(one, expected) for one in model([photo] * 3)] == [True] * 3
    assert model([]) == []
    taken = []
    stream = model(taken.append(number) or photo for number in range(1000))
    assert same(next(stream), expected) and len(taken) < 20
    stream.close()


def test_a_result_has_arrays_of_the_original_image(model, photo):
    found = model(photo)
    count = len(found)
    assert found.boxes.shape == (count, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == found.classes.shape == (count,)
    assert found.masks.shape == (count, 40, 56) and found.masks.dtype == bool
    assert found.names == CLASSES and found.semantic is None and found.panoptic is None
    for index, one in enumerate(found):
        assert one.name == CLASSES[one.label] and one.score == found.scores[index]
        assert np.array_equal(one.mask, found.masks[index])
    assert f"56 x 40: {count} objects" in repr(found)


def test_results_in_the_forms_of_coco(model, photo):
    found = model(photo)
    records = found.to_coco(image_id=7, category_ids=[10, 20, 30])
    for index, record in enumerate(records):
        assert record["image_id"] == 7
        assert record["category_id"] == 10 * (found.classes[index] + 1)
        x0, y0, x1, y1 = found.boxes[index]
        assert record["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0])
        assert np.array_equal(coco_mask.decode(record["segmentation"]), found.masks[index])
    assert {one["category_id"] for one in found.to_coco()} <= {1, 2, 3}
    with pytest.raises(ValueError, match=r"there are 3 classes, got category_ids \[1\]"):
        found.to_coco(category_ids=[1])


@pytest.mark.parametrize(
    ("library", "method"), [("pandas", "to_pandas"), ("supervision", "to_supervision")]
)
def test_forms_of_libraries_that_are_absent_name_them(model, photo, monkeypatch, library, method):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"needs: pip install {library}"):
        getattr(model(photo), method)()


def test_forms_of_pandas_and_supervision(model, photo):
    supervision, _ = pytest.importorskip("supervision"), pytest.importorskip("pandas")
    found = model(photo)
    detections, table = found.to_supervision(), found.to_pandas()
    assert isinstance(detections, supervision.Detections)
    assert np.array_equal(detections.xyxy, found.boxes)
    assert np.array_equal(detections.mask, found.masks)
    assert detections.data["class_name"].tolist() == table["name"].tolist()
    assert np.array_equal(table[["x0", "y0", "x1", "y1"]].to_numpy(), found.boxes)


def test_a_drawing_is_an_rgb_array_and_a_file(model, photo, tmp_path):
    found = model(photo)
    drawn = found.plot()
    assert drawn.dtype == np.uint8 and drawn.shape == (400, 560, 3)
    with Image.open(found.save(tmp_path / "drawn.png")) as image:
        assert np.array_equal(np.asarray(image), drawn)


def test_a_model_of_pixels_returns_classes_of_pixels(tmp_path, photo):
    found = swinv2_backbone.load(write_model(tmp_path, SEMANTIC), device="cpu")(photo)
    assert found.semantic.shape == (40, 56) and set(np.unique(found.semantic)) <= {0, 1, 2}
    assert found.names == found.stuff_names == CLASSES
    assert len(found) == 0 and found.masks is None and found.to_coco() == []
    assert "pixels of " in repr(found)
