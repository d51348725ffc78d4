"""A user's own semantic segmentation from config keys, or from Python."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data.datasets import load_sem_seg
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import class_names, register_custom_datasets
from swinv2_backbone.d2.data.datasets.semantic import read_names, register_semantic

NAMES = ["ground", "tree", "sky"]
LABELS = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two images, one of them in a subfolder, with labels and names."""
    for image, label in (("a.jpg", "a.png"), ("sub/b.png", "sub/b.png")):
        write_image(tmp_path / "images" / image)
        write_labels(tmp_path / "labels" / label, LABELS)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return tmp_path


def write_image(path: Path, size: tuple[int, int] = (2, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))


def write_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), labels)


@pytest.fixture
def name(tmp_path):
    name = f"{tmp_path.name}_semantic"
    yield name
    for one in (name, f"{name}_TEST"):
        if one in DatasetCatalog:
            DatasetCatalog.remove(one)
            MetadataCatalog.remove(one)


@pytest.fixture
def register(dataset, name):
    def run(**how) -> str:
        folders = (dataset / "images", dataset / "labels", dataset / "names.txt")
        register_semantic(name, *folders, **how)
        return name

    return run


def config(dataset: Path, name: str, *opts: str, split: str = "TRAIN", classes: int = 3):
    key = f"DATASETS.CUSTOM.{split}"
    return load_config(
        "",
        [
            *("MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(classes), f"{key}.NAME", name),
            *(f"{key}.IMAGES", str(dataset / "images"), f"{key}.LABELS", str(dataset / "labels")),
            *(
                "DATASETS.CUSTOM.NAMES",
                str(dataset / "names.txt"),
                "DATALOADER.NUM_WORKERS",
                "0",
                *opts,
            ),
        ],
    )


def refused(register, *words: str, **how) -> None:
    """The dataset must be refused with a report that holds all the words."""
    with pytest.raises(ValueError) as error:
        register(**how)
    assert [word for word in words if word not in str(error.value)] == []


def test_records_are_those_of_detectron2_with_sizes(register, dataset):
    records = DatasetCatalog.get(register())
    expected = load_sem_seg(str(dataset / "labels"), str(dataset / "images"), image_ext="jpg")
    assert [dict(record, height=2, width=4) for record in expected] == records[:1]
    assert [Path(record["file_name"]).name for record in records] == ["a.jpg", "b.png"]


def test_metadata_are_what_the_evaluation_reads(register, tmp_path):
    name = register(ignore_value=255)
    metadata = MetadataCatalog.get(name)
    assert (metadata.evaluator_type, metadata.stuff_classes) == ("sem_seg", NAMES)
    evaluator = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path / "results"))
    evaluator.reset()
    scores = np.eye(3)[np.where(LABELS == 255, 0, LABELS)].transpose(2, 0, 1)
    for record in DatasetCatalog.get(name):
        evaluator.process([record], [{"sem_seg": torch.tensor(scores)}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100


def test_records_of_one_call_do_not_change_the_next(register):
    name = register()
    DatasetCatalog.get(name)[0].clear()
    assert "file_name" in DatasetCatalog.get(name)[0]


def test_config_keys_register_and_select(dataset, name):
    cfg = config(dataset, name, "DATASETS.TEST", "('coco_2017_val',)")
    cfg = register_custom_datasets(cfg)
    assert [(name,), ()] == [cfg.DATASETS.TRAIN, cfg.DATASETS.TEST]
    assert cfg.DATASETS.CUSTOM.CLASSES == NAMES
    assert MetadataCatalog.get(name).ignore_label == 255
    cfg = register_custom_datasets(cfg)  # again is no error
    assert class_names(cfg) == NAMES


def test_both_splits_share_the_names(dataset, name):
    test = "DATASETS.CUSTOM.TEST"
    opts = [f"{test}.NAME", f"{name}_TEST", f"{test}.IMAGES", str(dataset / "images")]
    cfg = config(dataset, name, *opts, f"{test}.LABELS", str(dataset / "labels"))
    cfg = register_custom_datasets(cfg)
    assert ((name,), (f"{name}_TEST",)) == (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    assert len(build_detection_test_loader(cfg, f"{name}_TEST", mapper=dict)) == 2


def test_the_ignore_value_comes_from_the_config(dataset, name):
    write_labels(dataset / "labels" / "a.png", np.where(LABELS == 255, 99, LABELS))
    cfg = config(dataset, name, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "99")
    with pytest.raises(ValueError, match="values beyond the 3 classes, 255: sub/b.png"):
        cfg = register_custom_datasets(cfg)


def test_only_a_test_set_may_have_pixels_of_one_class(dataset, name):
    for label in ("a.png", "sub/b.png"):
        write_labels(dataset / "labels" / label, np.zeros_like(LABELS))
    register_custom_datasets(config(dataset, name, split="TEST"), ("TEST",))
    with pytest.raises(ValueError, match="one class has all pixels"):
        register_custom_datasets(config(dataset, name))


def test_names_in_another_order_than_those_of_the_model_are_refused(dataset, name):
    def evaluate(*classes: str) -> None:
        opts = ("DATASETS.CUSTOM.CLASSES", repr(list(classes)))
        register_custom_datasets(config(dataset, name, *opts, split="TEST"), ("TEST",))

    evaluate(*NAMES)
    evaluate("Boden", "Baum", "Himmel")  # may be the same in another language
    with pytest.raises(ValueError, match="names.txt .*are in another order.*CUSTOM.CLASSES"):
        evaluate(*reversed(NAMES))


def test_another_class_count_is_refused_with_the_key_to_set(dataset, name):
    with pytest.raises(ValueError, match="MODEL.SEM_SEG_HEAD.NUM_CLASSES 3"):
        register_custom_datasets(config(dataset, name, classes=54))


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], "META_ARCHITECTURE SemanticSegmentor"),
        (["DATASETS.CUSTOM.NAMES", ""], "LABELS need DATASETS.CUSTOM.NAMES"),
        (["DATASETS.CUSTOM.TRAIN.LABELS", ""], "IMAGES .* needs .*JSON .* or .*LABELS"),
        (["DATASETS.CUSTOM.TRAIN.LABELS", "nowhere"], "TRAIN: LABELS 'nowhere' is not a folder"),
        (["DATASETS.CUSTOM.NAMES", "nowhere.txt"], "TRAIN: NAMES 'nowhere.txt' cannot be read"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(dataset, name, opts, words):
    with pytest.raises(ValueError, match=words):
        register_custom_datasets(config(dataset, name, *opts))


def test_class_names_of_a_semantic_model_are_found_without_its_data(dataset, name):
    cfg = config(dataset, name)
    assert class_names(cfg) == NAMES  # from NAMES
    cfg.DATASETS.CUSTOM.NAMES, cfg.DATASETS.TEST = "", (f"{name}_TEST",)
    with pytest.raises(ValueError, match="DATASETS.CUSTOM.NAMES"):
        class_names(cfg)
    DatasetCatalog.register(f"{name}_TEST", list)
    metadata = {"stuff_classes": ["x", "y", "z"], "thing_classes": ["other"]}
    MetadataCatalog.get(f"{name}_TEST").set(**metadata)
    assert class_names(cfg) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ground\ntree\n\n\n", ["ground", "tree"]),
        ("ground\r\ntree", ["ground", "tree"]),
        ("\ufeffsol\n arbre fruitier \n", ["sol", "arbre fruitier"]),
        ("# sky\n", ["# sky"]),
    ],
)
def test_names_are_the_lines_of_the_file(tmp_path, text, names):
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert read_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has no names"),
        (b"\n\n", "it has no names"),
        (b"tree\n\nsky\n", "line 2 is blank"),
        (b"tree\nsky\ntree\n", "'tree' is there twice"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_faulty_names_are_refused(tmp_path, content, words):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"names.txt.*{words}"):
        read_names(tmp_path / "names.txt")


def test_images_and_labels_without_the_other_are_named(register, dataset):
    write_image(dataset / "images" / "c.jpg")
    write_labels(dataset / "labels" / "sub" / "d.png", LABELS)
    without_label = "images without a label image: c.jpg"
    refused(register, without_label, "label images without an image: sub/d.png")


def test_folders_without_images_are_refused(register, dataset):
    for path in (dataset / "images").rglob("*.*"):
        path.unlink()
    refused(register, "no images (.avif, ", "label images without an image (2)")


def test_folders_within_each_other_are_refused(dataset, name):
    with pytest.raises(ValueError, match="must not lie within each other"):
        register_semantic(name, dataset, dataset / "labels", dataset / "names.txt")


def test_two_images_of_one_name_are_refused(register, dataset):
    write_image(dataset / "images" / "a.PNG")
    refused(register, "files that differ only in their extension: a.PNG and a.jpg")


def test_hidden_and_other_files_are_left_out(register, dataset):
    (dataset / "images" / "._a.jpg").write_bytes(b"")
    (dataset / "images" / "notes.txt").write_bytes(b"")
    write_image(dataset / "images" / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    assert len(DatasetCatalog.get(register())) == 2


def test_labels_of_another_size_are_refused(register, dataset):
    write_image(dataset / "images" / "a.jpg", size=(4, 2))
    refused(register, "another size", "a.png (2x4, not 4x2)")


def test_damaged_files_are_refused(register, dataset):
    (dataset / "images" / "a.jpg").write_bytes(b"not an image")
    path = dataset / "labels" / "sub" / "b.png"
    path.write_bytes(path.read_bytes()[:50])
    refused(register, "image files that are damaged, or not images (2)", "a.jpg", "b.png")


def test_labels_with_colors_are_refused(register, dataset):
    write_image(dataset / "labels" / "a.png")
    refused(register, "label images with colors", "a.png")


def test_labels_that_the_evaluation_would_misread_are_refused(register, dataset):
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(LABELS).save(dataset / "labels" / "a.png", exif=exif)
    four_bits = Image.fromarray(np.array([[0, 17, 34, 0], [17, 0, 0, 0]], np.uint8))
    four_bits.save(dataset / "labels" / "sub" / "b.png", bits=4)
    refused(
        register, "label images of 2- or 4-bit gray, or with an EXIF rotation", "(2)", "8-bit PNG"
    )


def test_labels_may_have_a_palette_and_sixteen_bits(register, dataset):
    palette = Image.fromarray(LABELS).convert("P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    palette.save(dataset / "labels" / "a.png")
    write_labels(dataset / "labels" / "sub" / "b.png", LABELS.astype(np.uint16))
    assert len(DatasetCatalog.get(register())) == 2


def test_unknown_values_are_named_with_their_files(register, dataset):
    write_labels(dataset / "labels" / "a.png", np.where(LABELS == 1, 7, LABELS))
    write_labels(dataset / "labels" / "sub" / "b.png", np.where(LABELS == 1, 5, LABELS))
    found = "label images with values beyond the 3 classes, 5, 7 (2): a.png (7), sub/b.png (5)"
    refused(register, found, "name them in NAMES")  # not: shifted by one


def test_labels_that_start_at_one_are_recognized(register, dataset):
    for label in ("a.png", "sub/b.png"):
        write_labels(dataset / "labels" / label, np.where(LABELS == 255, 255, LABELS + 1))
    refused(register, "values beyond the 3 classes, 3", "shifted by one")


def test_data_without_any_labeled_pixel_are_refused(register, dataset):
    for label in ("a.png", "sub/b.png"):
        write_labels(dataset / "labels" / label, np.full_like(LABELS, 255))
    refused(register, "no pixel with a class: 255 everywhere")


def test_an_ignore_value_that_is_a_class_is_refused(register):
    refused(register, "2 (sky)", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", ignore_value=2)


def test_the_name_of_another_dataset_is_not_taken_over(dataset):
    folders = (dataset / "images", dataset / "labels", dataset / "names.txt")
    with pytest.raises(ValueError, match="ade20k_sem_seg_val.*another dataset"):
        register_semantic("ade20k_sem_seg_val", *folders)
