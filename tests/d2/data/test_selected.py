"""Datasets that a config selects by name."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.data.datasets.selected import check_datasets, warn_of_other_counts
from swinv2_backbone.d2.engine.prepare import class_faults

NAMES = ("selected_one", "selected_other")


@pytest.fixture
def register(tmp_path):
    def make(name: str, **metadata) -> str:
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield make
    for name in NAMES:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def check(train: str, test: str, *opts: str) -> None:
    plan = plan_from_yacs(load_config("", ["MODEL.DEVICE", "cpu", *opts]))
    if faults := list(class_faults(plan, [train, test])):
        raise ConfigError(faults)


def test_files_that_are_there_are_accepted(register, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    check_datasets([register(NAMES[0], json_file=str(tmp_path / "a.json"), image_root=tmp_path)])


@pytest.mark.parametrize("key", ["json_file", "image_root", "sem_seg_root", "panoptic_json"])
def test_files_that_are_missing_are_named_with_the_remedy(register, tmp_path, key):
    name = register(NAMES[0], **{key: str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match=f"{name}: .*nowhere does not exist.*DETECTRON2_DATASETS"):
        check_datasets([name])


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="'coco_2071_train' is not registered"):
        check_datasets(["coco_2071_train"])


def test_a_builtin_dataset_has_its_class_count_compared_too():
    names = ("coco_2017_train", "coco_2017_val")
    with pytest.raises(ValueError, match="coco_2017_train has 80 classes.*NUM_CLASSES 80"):
        check(*names, "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    check(*names)


def test_semantic_models_are_compared_with_what_pixels_can_be(register):
    name = register(NAMES[0], stuff_classes=["a", "b"], thing_classes=["c"])
    semantic = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"]
    check(name, name, *semantic, "2")
    with pytest.raises(ValueError, match="MODEL.SEM_SEG_HEAD.NUM_CLASSES 2"):
        check(name, name, *semantic, "3")


def test_training_and_test_must_have_the_same_classes_in_the_same_order(register):
    train = register(NAMES[0], thing_classes=["fig", "date"])
    test = register(NAMES[1], thing_classes=["date", "fig"])
    with pytest.raises(ValueError, match="date, fig.*fig, date"):
        check(train, test, "MODEL.ROI_HEADS.NUM_CLASSES", "2")


def test_models_of_another_kind_are_not_judged(register):
    name = register(NAMES[0], thing_classes=["fig"])
    check(name, name, "MODEL.META_ARCHITECTURE", "OfMyOwn")


@pytest.mark.parametrize("counts,told", [((1, 0), True), ((1, 1), False), ((None, 0), False)])
def test_boxes_of_both_sets_that_count_pixels_differently_are_told(register, caplog, counts, told):
    train, test = (register(name, first_pixel=one) for name, one in zip(NAMES, counts))
    with caplog.at_level("WARNING", "swinv2_backbone"):
        warn_of_other_counts([train], [test])
    words = f"The boxes of {test} count pixels from 0, those of {train} from 1"
    assert (words in caplog.text) == told == ("voc_from_zero for both" in caplog.text)
