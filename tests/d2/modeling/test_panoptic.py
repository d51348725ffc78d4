"""Panoptic segmentation: Panoptic FPN on the demo dataset, and perfect predictions on it.

panopticapi is on no package index; tests that need it run only where it is installed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from scripts import ROOT
from small_configs import SMALL

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.loading.images import read_image, read_labels
from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.demo.panoptic import register_demo_panoptic
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator
from swinv2_backbone.d2.inference.prediction import Classes
from swinv2_backbone.d2.inference.predictor import Predictor, predictor_of

NAMES = {"train": "panoptic_train_of_a_test", "val": "panoptic_val_of_a_test"}
CONFIG = ROOT / "configs" / "panoptic_fpn_swinv2_tiny.yaml"


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    demo = generate_demo_dataset(
        tmp_path_factory.mktemp("data") / "demo", num_train=4, num_val=6, image_size=64
    )
    for split, name in NAMES.items():
        register_demo_panoptic(name, demo, split)
    yield
    for name in NAMES.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(output: Path, *opts: str):
    return load_config(
        str(CONFIG),
        [
            *("MODEL.DEVICE", "cpu", *SMALL, "OUTPUT_DIR", str(output)),
            *("DATASETS.TRAIN", f"('{NAMES['train']}',)", "DATASETS.TEST", f"('{NAMES['val']}',)"),
            *("MODEL.ROI_HEADS.NUM_CLASSES", "5", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2"),
            *("INPUT.MASK_FORMAT", "bitmask", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0"),
            *opts,
        ],
    )


def truth(record: dict) -> dict:
    """Return the output of a perfect model."""
    metadata = MetadataCatalog.get(NAMES["val"])
    stuff = read_labels(record["sem_seg_file_name"])
    segments, info = np.zeros(stuff.shape, np.int64), []
    things = [a for a in record["annotations"] if not a["iscrowd"]]
    instances = Instances(stuff.shape)
    masks = [_mask(a, stuff.shape) for a in things]
    for number, (annotation, mask) in enumerate(zip(things, masks), start=1):
        segments[mask] = number
        info.append({"id": number, "isthing": True, "category_id": annotation["category_id"]})
    background = (stuff == 1) & (segments == 0)
    segments[background] = len(info) + 1
    info.append({"id": len(info) + 1, "isthing": False, "category_id": 1})
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in things)]
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.ones(len(things))
    instances.pred_classes = torch.tensor([a["category_id"] for a in things], dtype=torch.int64)
    instances.pred_masks = torch.tensor(np.array(masks).reshape(-1, *stuff.shape))
    assert metadata.stuff_classes[1] == "background"
    logits = torch.nn.functional.one_hot(torch.tensor(stuff.astype(np.int64)), 2).permute(2, 0, 1)
    return {
        "instances": instances,
        "sem_seg": logits.float(),
        "panoptic_seg": (torch.from_numpy(segments), info),
    }


def _mask(annotation: dict, size: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask as coco_mask

    given = annotation["segmentation"]
    if isinstance(given, list):
        given = coco_mask.merge(coco_mask.frPyObjects(given, *size))
    return coco_mask.decode(given).astype(bool)


def test_perfect_predictions_have_a_quality_of_100(tmp_path):
    pytest.importorskip("panopticapi")
    evaluator = build_evaluator(NAMES["val"], str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(NAMES["val"]):
        evaluator.process([record], [truth(record)])
    results = evaluator.evaluate()
    for metric in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        # Polygons follow the edges of masks to an eighth of a pixel.
        assert results["panoptic_seg"][metric] > 95, metric
    assert results["panoptic_seg"]["RQ"] == 100
    assert results["sem_seg"]["mIoU"] == 100


def test_a_panoptic_model_trains_evaluates_and_predicts(tmp_path):
    pytest.importorskip("panopticapi")
    cfg = config(tmp_path)
    trainer = Trainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    results = trainer._last_eval_results
    assert set(results) == {"sem_seg", "bbox", "segm", "panoptic_seg"}
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100


def test_a_panoptic_model_trains_and_its_prediction_is_drawn_and_written(tmp_path):
    cfg = config(tmp_path, "DATASETS.TEST", "()")
    trainer = Trainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    predictor = predictor_of(config(tmp_path, *weights))
    assert predictor.classes.stuff == ["things", "background"]
    record = DatasetCatalog.get(NAMES["val"])[0]
    picture = read_image(record["file_name"], "BGR")
    found = predictor(picture)
    assert found.panoptic[0].shape == picture.shape[:2]
    assert predictor.draw(picture, found).shape[2] == 3


def test_segments_are_written_with_their_names():
    record = DatasetCatalog.get(NAMES["val"])[0]
    model = torch.nn.Identity()
    model.forward = lambda inputs: [truth(record)]
    names = MetadataCatalog.get(NAMES["val"])
    import detectron2.data.transforms as T

    classes = Classes(names.thing_classes, names.stuff_classes)
    predictor = Predictor(model, classes, T.ResizeShortestEdge(64, 96), "RGB")
    picture = np.asarray(Image.open(record["file_name"]))[:, :, ::-1]
    segments = predictor.records(predictor(picture))["segments"]
    things = [names.thing_classes[a["category_id"]] for a in record["annotations"]]
    assert [one["category"] for one in segments] == [*things, "background"]
    assert [one["isthing"] for one in segments] == [True] * len(things) + [False]
