"""Our evaluators give the numbers that follow by hand from hand-made predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg, register_coco_instances
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator

NAME = "evaluated_in_a_test"
SIDE = 400  # of the square images that have boxes
CAT, DOG = 3, 9  # category ids with a gap ...
OUTPUTS = {CAT: 0, DOG: 1}  # ... and what a model calls them
MEAN_OF_ALL = ("AP", "AP50", "AP75")


class Square(NamedTuple):
    """An object or a prediction: `side` pixels from (x, y); its mask lacks `gap` of its rows."""

    category_id: int
    x: int
    y: int
    side: int = 100
    score: float = 0.9
    crowd: bool = False
    gap: int = 0

    def mask(self) -> np.ndarray:
        mask = np.zeros((SIDE, SIDE), bool)
        mask[self.y : self.y + self.side, self.x : self.x + self.side] = True
        mask[self.y + 10 : self.y + 10 + self.gap] = False  # the mask's own box stays the same
        return mask


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DemoDataset:
    root = tmp_path_factory.mktemp("evaluated") / "demo"
    return generate_demo_dataset(root, num_train=1, num_val=12, image_size=96)


def evaluate(
    folder: Path, records: Sequence[dict], outputs: Sequence[dict], limit: int | None = None
) -> dict:
    """As Detectron2 does: the inputs and outputs of one image after the other."""
    evaluator = build_evaluator(NAME, str(folder / "inference"), limit)
    evaluator.reset()
    for record, output in zip(records, outputs, strict=True):
        evaluator.process([record], [output])
    return evaluator.evaluate()


def pick(results: dict, *names: str) -> list[float]:
    return [results[name] for name in names]


# ---- boxes and masks --------------------------------------------------------------------------


def register_objects(folder: Path, images: Sequence[Sequence[Square]]) -> None:
    annotations = []
    for image_id, objects in enumerate(images):
        for thing in objects:
            runs = coco_mask.encode(np.asfortranarray(thing.mask(), np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": thing.category_id,
                    "bbox": [thing.x, thing.y, thing.side, thing.side],
                    "area": thing.side**2,
                    "iscrowd": int(thing.crowd),
                    "segmentation": {"size": [SIDE, SIDE], "counts": runs["counts"].decode()},
                }
            )
    truth = {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE}
            for i in range(len(images))
        ],
        "annotations": annotations,
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    register_coco_instances(NAME, {}, str(folder / "truth.json"), str(folder))


def predict(squares: Sequence[Square]) -> dict:
    """What a Mask R-CNN returns for one image."""
    instances = Instances((SIDE, SIDE))
    corners = [[s.x, s.y, s.x + s.side, s.y + s.side] for s in squares]
    instances.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor([s.score for s in squares])
    instances.pred_classes = torch.tensor([OUTPUTS[s.category_id] for s in squares]).long()
    masks = np.array([s.mask() for s in squares], bool).reshape(-1, SIDE, SIDE)
    instances.pred_masks = torch.from_numpy(masks)
    return {"instances": instances}


def score_objects(
    folder: Path,
    truth: Sequence[Sequence[Square]],
    predictions: Sequence[Sequence[Square]],
    limit: int | None = None,
) -> dict:
    register_objects(folder, truth)
    outputs = [predict(some) for some in predictions]
    return evaluate(folder, DatasetCatalog.get(NAME), outputs, limit)


PAIR = [[Square(CAT, 20, 30), Square(DOG, 200, 210)], [Square(DOG, 100, 50), Square(CAT, 220, 7)]]


MANY = [Square(CAT, x, y, 12) for x in range(0, 400, 20) for y in range(0, 300, 20)]
FIRST_100 = pytest.approx(100 * 34 / 101)  # at 34 of COCO's 101 recalls, 0 to 0.33


@pytest.mark.parametrize(
    "limit, expected",
    [
        (300, 100),
        *(pytest.param(limit, 100, marks=pytest.mark.slow) for limit in (1000, -1)),
        (100, FIRST_100),
        (None, FIRST_100),
    ],
)
def test_ap_counts_as_many_detections_as_the_model_returns(tmp_path, limit, expected):
    others = [Square(DOG, 300, 320), Square(DOG, 100, 320, 60)]
    squares = [Square(*one[:4], 0.9 - 0.001 * place) for place, one in enumerate(MANY)] + others
    results = score_objects(tmp_path, [squares], [squares], limit)
    for kind in ("bbox", "segm"):
        assert results[kind]["AP-cat"] == expected
        assert results[kind]["AP-dog"] == pytest.approx(100)
        assert results[kind]["APs"] == results[kind]["AP-cat"]  # all cats are small, and no dog
    found = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert len(found) == 302


def test_a_lower_limit_changes_no_digit(tmp_path):
    squares = [one._replace(score=0.9 - 0.001 * place) for place, one in enumerate(MANY[:90])]
    moved = [one._replace(x=one.x + place % 5) for place, one in enumerate(squares)]
    whole = score_objects(tmp_path, [squares], [moved])
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)
    limited = score_objects(tmp_path, [squares], [moved], 90)
    np.testing.assert_equal(limited, whole)
    assert 10 < whole["bbox"]["AP"] < 90


def test_the_demo_datasets_own_truth_scores_100(demo, tmp_path):
    register_coco_instances(NAME, {}, str(demo.val_json), str(demo.val_images))
    coco = COCO(str(demo.val_json))
    outputs = []
    for image in coco.loadImgs(sorted(coco.imgs)):
        # Crowds are not predicted: nobody can tell where one of them ends.
        things = coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False))
        boxes = np.array([thing["bbox"] for thing in things], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [coco.annToMask(thing).astype(bool) for thing in things]
        instances = Instances((image["height"], image["width"]))
        instances.pred_boxes = Boxes(torch.from_numpy(boxes))
        instances.scores = torch.ones(len(things))
        instances.pred_classes = torch.tensor(
            [[2, 3, 7, 11, 20].index(thing["category_id"]) for thing in things]
        ).long()
        instances.pred_masks = torch.from_numpy(
            np.array(masks, bool).reshape(-1, *instances.image_size)
        )
        outputs.append({"instances": instances})
    results = evaluate(tmp_path, DatasetCatalog.get(NAME), outputs)
    for kind in ("bbox", "segm"):
        classes = [f"AP-{name}" for name in ("disc", "square", "triangle", "star", "ring")]
        assert pick(results[kind], *MEAN_OF_ALL, *classes) == pytest.approx([100] * 8)


@pytest.mark.parametrize(
    ("shift", "iou", "ap", "ap75"),
    [
        (0, 1.0, 100, 100),
        (5, 0.9048, 90, 100),  # nine of the ten thresholds 0.50, 0.55 ... 0.95
        (17, 0.7094, 50, 0),
        (18, 0.6949, 40, 0),
        (33, 0.5038, 10, 0),
        (34, 0.4925, 0, 0),
    ],
)
def test_ap_is_the_share_of_the_thresholds_that_the_overlap_reaches(tmp_path, shift, iou, ap, ap75):
    assert (100 - shift) / (100 + shift) == pytest.approx(iou, abs=1e-4)
    moved = [[square._replace(x=square.x + shift) for square in image] for image in PAIR]
    results = score_objects(tmp_path, PAIR, moved)
    for kind in ("bbox", "segm"):
        found = pick(results[kind], *MEAN_OF_ALL, "AP-cat", "AP-dog")
        assert found == pytest.approx([ap, 100 * (iou > 0.5), ap75, ap, ap])


def test_boxes_and_masks_are_scored_each_by_their_own(tmp_path):
    parted = [[square._replace(gap=29) for square in image] for image in PAIR]  # IoU 0.71
    results = score_objects(tmp_path, PAIR, parted)
    assert pick(results["bbox"], *MEAN_OF_ALL) == pytest.approx([100, 100, 100])
    assert pick(results["segm"], *MEAN_OF_ALL) == pytest.approx([50, 100, 0])


def test_a_class_that_is_never_found_halves_the_mean_of_two(tmp_path):
    cats = [[square for square in image if square.category_id == CAT] for image in PAIR]
    results = score_objects(tmp_path, PAIR, cats)
    for kind in ("bbox", "segm"):
        found = pick(results[kind], *MEAN_OF_ALL, "AP-cat", "AP-dog")
        assert found == pytest.approx([50, 50, 50, 100, 0])


def test_a_swapped_class_finds_nothing(tmp_path):
    swapped = [[s._replace(category_id=CAT + DOG - s.category_id) for s in image] for image in PAIR]
    results = score_objects(tmp_path, PAIR, swapped)
    assert pick(results["bbox"], *MEAN_OF_ALL) == [0, 0, 0]


@pytest.mark.parametrize(("score", "ap"), [(0.8, 100), (0.95, 50)])
def test_a_false_alarm_costs_when_it_is_surer_than_what_is_right(tmp_path, score, ap):
    truth = [[Square(CAT, 20, 30), Square(DOG, 200, 210)]]
    alarms = [Square(CAT, 250, 30, score=score), Square(DOG, 20, 210, score=score)]
    results = score_objects(tmp_path, truth, [[*truth[0], *alarms]])
    assert pick(results["bbox"], *MEAN_OF_ALL) == pytest.approx([ap, ap, ap])


def test_half_of_the_objects_reach_51_of_the_101_recalls(tmp_path):
    results = score_objects(tmp_path, PAIR, [PAIR[0], []])
    for kind in ("bbox", "segm"):
        assert pick(results[kind], *MEAN_OF_ALL) == pytest.approx([100 * 51 / 101] * 3)


def test_objects_are_small_medium_or_large_by_their_area(tmp_path):
    sizes = {20: 0, 32 + 4: 90, 96 + 4: 170}  # side of each size and where it is
    truth = [
        [Square(c, x, 5 + 200 * (c == DOG), side) for side, x in sizes.items() for c in OUTPUTS]
    ]
    found = [[square for square in truth[0] if square.side > 20]]
    results = score_objects(tmp_path, truth, found)
    assert pick(results["bbox"], "APs", "APm", "APl") == pytest.approx([0, 100, 100])


def test_what_is_found_in_a_crowd_is_no_false_alarm(tmp_path):
    crowd = Square(CAT, 200, 200, side=150, crowd=True)
    among = [Square(CAT, 210 + 40 * i, 220, side=30, score=0.99) for i in range(3)]
    truth = [[Square(CAT, 20, 30), Square(DOG, 200, 30), crowd]]
    results = score_objects(tmp_path, truth, [[*truth[0][:2], *among]])
    for kind in ("bbox", "segm"):
        assert pick(results[kind], *MEAN_OF_ALL, "AP-cat") == pytest.approx([100] * 4)


def test_an_image_without_predictions_counts_its_objects_as_missed(tmp_path):
    truth = [[Square(CAT, 20, 30)], [Square(DOG, 20, 30)]]
    results = score_objects(tmp_path, truth, [truth[0], []])
    assert pick(results["bbox"], "AP", "AP-cat", "AP-dog") == pytest.approx([50, 100, 0])


def test_a_model_that_finds_nothing_scores_0(tmp_path):
    results = score_objects(tmp_path, PAIR, [[], []])
    for kind in ("bbox", "segm"):
        assert pick(results[kind], *MEAN_OF_ALL, "AP-cat", "AP-dog") == [0] * 5


# ---- pixels -----------------------------------------------------------------------------------


def register_labels(images: Path, labels: Path, classes: Sequence[str], suffix: str) -> None:
    DatasetCatalog.register(
        NAME, lambda: load_sem_seg(str(labels), str(images), "png", image_ext=suffix)
    )
    MetadataCatalog.get(NAME).set(
        evaluator_type="sem_seg", stuff_classes=list(classes), ignore_label=255
    )


def logits(labels: np.ndarray, count: int) -> dict:
    """What a segmentation model returns that is sure of `labels`, (H, W)."""
    classes = torch.from_numpy(labels).long()
    return {"sem_seg": torch.nn.functional.one_hot(classes, count).permute(2, 0, 1) * 5.0}


def score_pixels(
    folder: Path,
    truth: Sequence[Sequence[int]],
    predictions: Sequence[Sequence[int]],
    classes: Sequence[str] = ("sky", "road", "tree"),
    palette: bool = False,
) -> dict:
    """Evaluate images of one row of pixels each, given by their labels."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i, row in enumerate(truth):
        (folder / "images" / f"{i}.jpg").touch()
        image = Image.fromarray(np.array([row], np.uint8))
        if palette:
            image.putpalette(bytes(reversed(range(256))) * 3)
            assert image.mode == "P"
        image.save(folder / "labels" / f"{i}.png")
    register_labels(folder / "images", folder / "labels", classes, "jpg")
    outputs = [logits(np.array([row]), len(classes)) for row in predictions]
    return evaluate(folder, DatasetCatalog.get(NAME), outputs)["sem_seg"]


NUMBERS = ("mIoU", "fwIoU", "mACC", "pACC")
# Ten pixels: six of sky, of which one is taken for road; three of road, of which one is taken for
# tree; one of tree. Intersections 5, 2, 1; unions 6, 4, 2.
TRUTH = [[0, 0, 0, 0], [0, 0, 1, 1, 1, 2]]
GUESS = [[0, 0, 0, 1], [0, 0, 1, 1, 2, 2]]
IOU = (5 / 6, 2 / 4, 1 / 2)
ACCURACY = (5 / 6, 2 / 3, 1 / 1)
EXPECTED = {
    "mIoU": 100 * sum(IOU) / 3,
    "fwIoU": 100 * (0.6 * IOU[0] + 0.3 * IOU[1] + 0.1 * IOU[2]),
    "mACC": 100 * sum(ACCURACY) / 3,
    "pACC": 100 * 8 / 10,
    **{f"IoU-{name}": 100 * v for name, v in zip(("sky", "road", "tree"), IOU)},
    **{f"ACC-{name}": 100 * v for name, v in zip(("sky", "road", "tree"), ACCURACY)},
}


def test_the_demo_datasets_own_labels_score_100(demo, tmp_path):
    classes = demo.classes.read_text().split()
    register_labels(demo.val_images, demo.val_labels, classes, "png")
    records = DatasetCatalog.get(NAME)
    labels = [np.array(Image.open(record["sem_seg_file_name"])) for record in records]
    results = evaluate(tmp_path, records, [logits(one, len(classes)) for one in labels])["sem_seg"]
    assert len(records) == 12
    assert pick(results, *NUMBERS) == pytest.approx([100] * 4)
    assert pick(results, *(f"IoU-{name}" for name in classes)) == pytest.approx([100] * 6)


def test_confused_pixels_give_the_numbers_of_the_formulas(tmp_path):
    results = score_pixels(tmp_path, TRUTH, GUESS)
    assert pick(results, *EXPECTED) == pytest.approx([*EXPECTED.values()])


def test_pixels_count_alike_in_whichever_image_they_are(tmp_path):
    together = score_pixels(tmp_path, [sum(TRUTH, [])], [sum(GUESS, [])])
    assert pick(together, *EXPECTED) == pytest.approx([*EXPECTED.values()])


def test_ignored_pixels_do_not_count_whatever_is_predicted(tmp_path):
    truth = [[*TRUTH[0], 255, 255, 255], TRUTH[1], [255, 255]]
    guess = [[*GUESS[0], 0, 1, 2], GUESS[1], [2, 2]]
    results = score_pixels(tmp_path, truth, guess)
    assert pick(results, *EXPECTED) == pytest.approx([*EXPECTED.values()])


def test_a_palette_only_colors_the_labels(tmp_path):
    results = score_pixels(tmp_path, TRUTH, GUESS, palette=True)
    assert pick(results, *EXPECTED) == pytest.approx([*EXPECTED.values()])


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_count(tmp_path):
    classes = ("sky", "road", "tree", "sea")
    results = score_pixels(tmp_path, TRUTH, GUESS, classes)
    assert pick(results, *NUMBERS) == pytest.approx(pick(EXPECTED, *NUMBERS))
    assert np.isnan(results["IoU-sea"])


def test_a_class_that_is_never_predicted_counts_as_0(tmp_path):
    results = score_pixels(tmp_path, [[0, 0, 0, 1]], [[0, 0, 0, 0]], ("sky", "road"))
    assert pick(results, *NUMBERS) == pytest.approx([37.5, 56.25, 50, 75])
    assert pick(results, "IoU-sky", "IoU-road") == pytest.approx([75, 0])


def test_a_class_that_is_predicted_but_never_occurs_counts_as_0(tmp_path):
    results = score_pixels(tmp_path, [[0, 0, 0, 0]], [[0, 0, 0, 1]], ("sky", "road"))
    assert results["mIoU"] == pytest.approx(37.5)
    assert pick(results, "IoU-sky", "IoU-road") == [75, 0]  # their mean is the mIoU
    assert np.isnan(results["ACC-road"])


def test_a_class_that_is_only_predicted_is_told_from_one_that_is_absent(tmp_path, caplog):
    caplog.set_level("INFO")
    classes = ("sky", "road", "sea", "tree")
    results = score_pixels(tmp_path, [[0, 0, 0, 1]], [[0, 0, 2, 0]], classes)
    assert pick(results, "IoU-road", "IoU-sea") == [0, 0]
    assert np.isnan(results["IoU-tree"])
    lines = {name: line for line in caplog.text.splitlines() for name in classes if name in line}
    assert "counts as 0" in lines["sea"] and "absent" in lines["tree"]
    marks = ("counts", "absent")
    assert not any(mark in lines[name] for name in ("sky", "road") for mark in marks)
    saved = torch.load(tmp_path / "inference" / "sem_seg_evaluation.pth", weights_only=False)
    assert saved["IoU-sea"] == 0
