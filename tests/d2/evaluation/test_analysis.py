"""The analysis of a run on truth and predictions made by hand, whose numbers are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.structures import BitMasks, Boxes, Instances
from PIL import Image
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.evaluation.analysis.average_precision import average_precisions, evaluate
from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion, object_confusion
from swinv2_backbone.d2.evaluation.analysis.detections import Detections, load_detections
from swinv2_backbone.d2.evaluation.analysis.heat_map import draw_confusion
from swinv2_backbone.d2.evaluation.analysis.matching import match, match_images, worst_images
from swinv2_backbone.d2.evaluation.analysis.pictures import (
    CAPTION,
    FALSE,
    MISSED,
    RIGHT,
    draw_detections,
    draw_segmentation,
)
from swinv2_backbone.d2.evaluation.analysis.precision_recall import draw_precision_recall
from swinv2_backbone.d2.evaluation.analysis.segmentation import (
    class_iou,
    compare_segmentation,
    mean_iou,
)
from swinv2_backbone.d2.evaluation.analysis.tables import confusion_text, precision_text
from swinv2_backbone.d2.evaluation.analysis.training_curves import draw_training, read_metrics

# Ids with gaps, not in their order in the file: the classes are dog, cat.
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
DOG, CAT = 3, 7
SMALL, MEDIUM = [5, 5, 20, 20], [40, 40, 40, 50]
SIZE = (120, 100)  # height, width of all images


def rle(box: list[float]) -> dict:
    """A filled box of whole numbers as a mask."""
    x, y, width, height = box
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    encoded = coco_mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def an_object(image: int, category: int, box: list[float], **more) -> dict:
    area = box[2] * box[3]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "segmentation": rle(box),
        **more,
    }


def found(image: int, category: int, box: list[float], score: float = 0.9, **more) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score, **more}


def write_coco(folder: Path, objects: list[dict], images: int = 2) -> Path:
    """A COCO-format dataset of noise under ``folder``; returns its JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    records = []
    for number in range(1, images + 1):
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), random.integers(0, 255, (*SIZE, 3), np.uint8))
        records.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    annotations = [{"id": number, **one} for number, one in enumerate(objects, 1)]
    content = {"images": records, "annotations": annotations, "categories": CATEGORIES}
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


def write_segmentation(folder: Path, truths: list, **image_options) -> list[dict]:
    """Images of noise with label files ``truths`` under ``folder``; returns their records."""
    folder.mkdir(parents=True, exist_ok=True)
    random, records = np.random.default_rng(0), []
    for number, truth in enumerate(truths):
        truth = np.asarray(truth, np.uint8)
        image, label = folder / f"{number}.jpg", folder / f"{number}.png"
        cv2.imwrite(str(image), random.integers(0, 255, (*truth.shape, 3), np.uint8))
        labels = Image.fromarray(truth)
        if image_options.get("palette"):
            labels = Image.fromarray(truth, mode="P")
            labels.putpalette(random.integers(0, 255, 768).astype(np.uint8).tobytes())
        labels.save(label)
        height, width = truth.shape
        records.append(
            {
                "file_name": str(image),
                "sem_seg_file_name": str(label),
                "height": height,
                "width": width,
            }
        )
    return records


def segments(record: dict, labels) -> list[dict]:
    """A prediction in the format of Detectron2's SemSegEvaluator."""
    labels = np.asarray(labels)
    entries = []
    for label in np.unique(labels):
        mask = coco_mask.encode(np.asfortranarray(labels == label, np.uint8))
        mask["counts"] = mask["counts"].decode()
        entries.append(
            {"file_name": record["file_name"], "category_id": int(label), "segmentation": mask}
        )
    return entries


@pytest.fixture
def registered():
    """Registers datasets; they are forgotten after the test."""
    names = []

    def coco(folder: Path, objects: list[dict], images: int = 2) -> str:
        names.append(f"analysis_{folder.name}_{len(names)}")
        register_coco_instances(names[-1], {}, str(write_coco(folder, objects, images)), folder)
        DatasetCatalog.get(names[-1])
        return names[-1]

    def semantic(folder: Path, truths: list, classes: list[str], **options) -> str:
        names.append(f"analysis_{folder.name}_{len(names)}")
        records = write_segmentation(folder, truths, **options)
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(
            stuff_classes=classes, ignore_label=255, evaluator_type="sem_seg"
        )
        return names[-1]

    coco.semantic, coco.names = semantic, names
    yield coco
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


TRUTH = [
    an_object(1, DOG, SMALL),
    an_object(1, CAT, MEDIUM),
    an_object(2, DOG, SMALL),
    an_object(2, CAT, MEDIUM),
]
PERFECT = [found(o["image_id"], o["category_id"], o["bbox"]) for o in TRUTH]


@pytest.fixture
def compared(registered, tmp_path):
    """Detections beside a truth, which is ``TRUTH`` unless another is given."""

    def build(detections: list[dict], truth: list[dict] = TRUTH) -> Detections:
        return load_detections(registered(tmp_path, truth), detections)

    return build


def precisions(detections: Detections, task: str = "bbox") -> dict:
    return average_precisions(evaluate(detections, task), detections)


def confusion(detections: Detections, iou: float = 0.5, confidence: float = 0.5) -> list:
    matches = match_images(detections, iou, confidence)
    return object_confusion(matches.values(), detections.classes, detections.index).counts.tolist()


# Average precision


def test_perfect_detections_have_ap_100(compared):
    table = precisions(compared(PERFECT))
    assert list(table["classes"]) == ["dog", "cat"]
    expected = {"AP": 100, "AP50": 100, "AP75": 100, "APs": 100, "APm": 100, "APl": math.nan}
    assert table["all"] == pytest.approx(expected, nan_ok=True)
    # All dogs are small and all cats of medium size.
    assert table["classes"]["dog"] == pytest.approx({**expected, "APm": math.nan}, nan_ok=True)
    assert table["classes"]["cat"] == pytest.approx({**expected, "APs": math.nan}, nan_ok=True)


def test_a_swapped_class_costs_half_of_the_recall(compared):
    swapped = [*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)]
    table = precisions(compared(swapped))["classes"]
    # Of COCO's 101 recalls the 51 up to 0.5 are reached, with precision 1.
    assert table["cat"]["AP"] == pytest.approx(100 * 51 / 101)
    assert table["dog"]["AP"] == pytest.approx(100)  # the false one has a lower score


@pytest.mark.parametrize("iou, passed", [(0.67, 4), (0.72, 5), (0.77, 6)])
def test_ap_counts_the_thresholds_that_the_boxes_pass(compared, iou, passed):
    lower = [found(o["image_id"], o["category_id"], o["bbox"]) for o in TRUTH]
    for one in lower:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x, y, width, height * iou]
    table = precisions(compared(lower))
    for scores in (table["all"], *table["classes"].values()):
        values = (scores["AP"], scores["AP50"], scores["AP75"])
        assert values == pytest.approx((10 * passed, 100, 100 if iou > 0.75 else 0))


def test_no_detections_have_ap_0(compared):
    table = precisions(compared([]))
    assert table["all"]["AP"] == table["classes"]["cat"]["AP50"] == 0
    assert math.isnan(table["all"]["APl"])


def test_masks_are_evaluated_as_masks(compared):
    halves = [
        {**one, "segmentation": rle([*one["bbox"][:3], one["bbox"][3] // 2])} for one in PERFECT
    ]
    detections = compared(halves)
    assert detections.tasks == ("bbox", "segm")
    assert precisions(detections, "bbox")["all"]["AP"] == pytest.approx(100)
    # The IoU of the masks is 1/2: the first of ten thresholds.
    table = precisions(detections, "segm")["all"]
    assert (table["AP"], table["AP50"], table["AP75"]) == pytest.approx((10, 100, 0))


def test_the_size_of_a_mask_is_that_of_its_pixels(compared):
    # A false detection with a big box but few pixels is small, so it counts among the small ones.
    thin = found(1, DOG, [10, 30, 60, 60], 0.95, segmentation=rle([10, 30, 60, 2]))
    truth = [an_object(1, DOG, SMALL)]
    detections = compared([thin, found(1, DOG, SMALL, segmentation=rle(SMALL))], truth)
    assert precisions(detections, "segm")["all"]["APs"] == pytest.approx(50)
    assert precisions(detections, "bbox")["all"]["APs"] == pytest.approx(100)


@pytest.mark.parametrize("without", ["an object", "a detection"])
def test_masks_are_left_alone_where_one_is_missing(compared, without):
    truth = [dict(one) for one in TRUTH]
    found_masks = [{**one, "segmentation": rle(one["bbox"])} for one in PERFECT]
    side = truth if without == "an object" else found_masks
    side[-1]["segmentation"] = []
    assert compared(found_masks, truth).tasks == ("bbox",)


def instances(boxes: list, classes: list[int], scores: list[float]) -> Instances:
    one = Instances(SIZE)
    x, y, width, height = np.array(boxes, float).T
    one.pred_boxes = Boxes(torch.tensor(np.stack([x, y, x + width, y + height], 1)))
    one.pred_classes, one.scores = torch.tensor(classes), torch.tensor(scores)
    masks = torch.stack([torch.tensor(coco_mask.decode(rle(box))) for box in boxes])
    one.pred_masks = BitMasks(masks).tensor
    return one


def test_numbers_are_those_of_detectron2_on_its_own_file(registered, tmp_path):
    name = registered(tmp_path, TRUTH)
    evaluator = COCOEvaluator(
        name, output_dir=str(tmp_path / "out"), use_fast_impl=False, distributed=False
    )
    evaluator.reset()
    predicted = {
        1: instances([[5, 5, 20, 15], MEDIUM, [60, 60, 20, 20]], [0, 1, 0], [0.7, 0.6, 0.8]),
        2: instances([SMALL, [40, 40, 36, 44]], [1, 1], [0.9, 0.5]),
    }
    for image, one in predicted.items():
        evaluator.process([{"image_id": image}], [{"instances": one}])
    expected = evaluator.evaluate()
    entries = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    for task in ("bbox", "segm"):
        table = precisions(load_detections(name, entries), task)
        assert 0 < table["all"]["AP"] < 100
        for metric, value in table["all"].items():
            assert value == pytest.approx(expected[task][metric], nan_ok=True), metric
        for label, scores in table["classes"].items():
            assert scores["AP"] == pytest.approx(expected[task][f"AP-{label}"])


def test_detections_of_another_dataset_are_refused(compared):
    with pytest.raises(ValueError, match="image_id.*such as 5"):
        compared([found(5, DOG, SMALL)])
    with pytest.raises(ValueError, match="category_id.*such as 0"):
        compared([found(1, 0, SMALL)])


def test_a_truth_without_objects_is_refused(compared):
    with pytest.raises(ValueError, match="no annotations"):
        compared([], [])


def test_a_dataset_without_a_coco_format_file_is_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    with pytest.raises(ValueError, match="not registered with a COCO-format JSON"):
        load_detections(name, [])


# Confusion of objects: rows and columns are dog, cat, and background or missed


def test_perfect_detections_have_a_diagonal_confusion_table(compared):
    assert confusion(compared(PERFECT)) == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_a_swapped_class_is_off_the_diagonal(compared):
    swapped = [*PERFECT[:3], found(2, DOG, MEDIUM)]
    assert confusion(compared(swapped)) == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_a_missed_object_is_in_the_last_column(compared):
    assert confusion(compared(PERFECT[:3])) == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_duplicate_is_in_the_last_row(compared):
    twice = [*PERFECT, found(1, CAT, MEDIUM, 0.6)]
    assert confusion(compared(twice)) == [[2, 0, 0], [0, 2, 0], [0, 1, 0]]


def test_without_detections_everything_is_missed(compared):
    assert confusion(compared([])) == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]


def test_detections_below_the_confidence_do_not_exist(compared):
    scored = [{**one, "score": score} for one, score in zip(PERFECT, (0.5, 0.49, 0.9, 0.1))]
    assert confusion(compared(scored), confidence=0.5) == [[2, 0, 0], [0, 0, 2], [0, 0, 0]]


def test_boxes_below_the_iou_do_not_match(compared):
    half = [found(1, DOG, [5, 5, 20, 10])]
    truth = [an_object(1, DOG, SMALL)]
    assert match(truth, half, 0.5).errors == 0
    assert match(truth, half, 0.51).errors == 2  # one missed, one false


def test_detections_in_crowds_are_ignored_whatever_their_class(compared):
    crowd = an_object(1, CAT, [30, 30, 60, 60], iscrowd=1)
    inside = [found(1, CAT, [35, 35, 10, 10]), found(1, DOG, [60, 60, 20, 20])]
    half_outside = [found(1, DOG, [85, 40, 10, 10], 0.8), found(1, DOG, [86, 70, 10, 10], 0.8)]
    detections = compared([*PERFECT[:1], *inside, *half_outside], [TRUTH[0], crowd])
    # Exactly half of the third lies in the crowd, less of the fourth; the crowd is not missed.
    assert confusion(detections) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_an_object_in_a_crowd_is_matched_before_the_crowd_ignores():
    crowd = an_object(1, CAT, [0, 0, 60, 60], iscrowd=1)
    matches = match([crowd, an_object(1, DOG, SMALL)], [found(1, DOG, SMALL)], 0.5)
    assert len(matches.pairs) == 1 and not matches.ignored and matches.crowds == [crowd]


def test_the_highest_score_chooses_first():
    better, higher = found(1, DOG, SMALL, 0.6), found(1, DOG, [5, 5, 20, 16], 0.7)
    matches = match([an_object(1, DOG, SMALL)], [better, higher], 0.5)
    assert matches.pairs[0][1] is higher and matches.false == [better]


def test_a_taken_object_leaves_the_next_best():
    near, far = an_object(1, DOG, [0, 0, 20, 20]), an_object(1, DOG, [0, 0, 20, 28])
    matches = match([near, far], [found(1, DOG, [0, 0, 20, 20], s) for s in (0.9, 0.8)], 0.5)
    assert [truth for truth, _ in matches.pairs] == [near, far]


@pytest.mark.parametrize("own", [0, 1])
def test_of_equal_boxes_that_of_the_own_class_is_taken(own):
    truth = [an_object(1, DOG, SMALL), an_object(1, CAT, SMALL)]
    matches = match(truth, [found(1, (DOG, CAT)[own], SMALL)], 0.5)
    assert matches.pairs[0][0] is truth[own]


def test_of_equal_objects_the_first_is_taken():
    truth = [an_object(1, DOG, SMALL), an_object(1, DOG, SMALL)]
    matches = match(truth, [found(1, DOG, SMALL)], 0.5)
    assert matches.pairs[0][0] is truth[0] and matches.missed[0] is truth[1]


def box_iou(a: list[float], b: list[float]) -> float:
    """Intersection over union from its definition."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(across, 0) * max(down, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize("seed", range(20))
def test_random_scenes_match_as_a_plain_loop_matches_them(seed):
    random = np.random.default_rng(seed)

    def boxes(count: int) -> list[list[float]]:
        return np.hstack([random.uniform(0, 30, (count, 2)), random.uniform(10, 40, (count, 2))])

    truth = [{"category_id": DOG, "bbox": box.tolist()} for box in boxes(8)]
    scores = random.permutation(12) / 12
    detections = [found(1, CAT, box.tolist(), score) for box, score in zip(boxes(12), scores)]
    taken, expected = set(), []
    for one in sorted(detections, key=lambda d: d["score"], reverse=True):
        ious = {i: box_iou(one["bbox"], truth[i]["bbox"]) for i in range(8) if i not in taken}
        best = max(ious, key=ious.get, default=None)
        if best is not None and ious[best] >= 0.4:
            taken.add(best)
            expected.append((best, one["score"]))
    matches = match(truth, detections, 0.4)
    assert [(truth.index(a), b["score"]) for a, b in matches.pairs] == expected
    assert len(matches.missed) == 8 - len(expected) and len(matches.false) == 12 - len(expected)
    assert 0 < len(expected) < 8


def test_the_worst_images_have_most_errors_and_ties_go_by_name():
    one_error = match([an_object(1, DOG, SMALL)], [], 0.5)
    two_errors = match([an_object(1, DOG, SMALL)], [found(1, DOG, MEDIUM)], 0.5)
    wrong_class = match([an_object(1, DOG, SMALL)], [found(1, CAT, SMALL)], 0.5)
    none = match([an_object(1, DOG, SMALL)], [found(1, DOG, SMALL)], 0.5)
    matches = {1: one_error, 2: none, 3: two_errors, 4: wrong_class}
    names = {1: "b.png", 2: "x.png", 3: "c.png", 4: "a.png"}
    assert worst_images(matches, names, 10) == [3, 4, 1]
    assert worst_images(matches, names, 2) == [3, 4]


# Semantic segmentation


def test_iou_is_that_of_the_formula():
    # Truth has 8 + 4 pixels; 6 + 3 of them are right.
    counts = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert class_iou(counts) == pytest.approx([100 * 6 / 9, 50, math.nan], nan_ok=True)
    assert mean_iou(counts) == pytest.approx(100 * (6 / 9 + 1 / 2) / 2)
    assert math.isnan(mean_iou(np.zeros((2, 2))))


def test_perfect_segmentation_has_iou_100_and_a_diagonal_table(registered, tmp_path):
    truth = np.array([[0, 0, 1], [2, 2, 1]])
    name = registered.semantic(tmp_path, [truth], ["sky", "tree", "road"])
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], truth))
    assert compared.confusion.counts.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert compared.scores == [100] and compared.worst(5) == []


@pytest.mark.parametrize("palette", [False, True])
def test_ignored_pixels_do_not_count(registered, tmp_path, palette):
    truth, predicted = [[0, 0, 255], [1, 255, 255]], [[0, 1, 1], [1, 0, 0]]
    name = registered.semantic(tmp_path, [truth], ["sky", "tree"], palette=palette)
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], predicted))
    assert compared.confusion.counts.tolist() == [[1, 1], [0, 1]]
    assert compared.scores == [pytest.approx(50)]


def test_the_worst_segmentation_comes_first(registered, tmp_path):
    truth = np.array([[0, 0, 0, 1]])
    name = registered.semantic(tmp_path, [truth, truth, truth, [[255] * 4]], ["sky", "tree"])
    records = DatasetCatalog.get(name)
    predicted = [[[0, 0, 1, 1]], truth, [[1, 1, 1, 0]], truth]
    entries = [one for r, labels in zip(records, predicted) for one in segments(r, labels)]
    compared = compare_segmentation(name, entries)
    assert compared.worst(5) == [2, 0]  # neither the perfect one nor the one that is all ignored
    assert compared.scores[:3] == pytest.approx([100 * (2 / 3 + 1 / 2) / 2, 100, 0])


def test_segmentation_equals_detectron2_on_its_own_file(registered, tmp_path):
    random = np.random.default_rng(0)
    truths = [random.choice([0, 1, 2, 255], (9, 7)) for _ in range(3)]
    name = registered.semantic(tmp_path, truths, ["sky", "tree", "road"])
    evaluator = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        logits = torch.tensor(random.normal(size=(3, 9, 7)))
        evaluator.process([record], [{"sem_seg": logits}])
    expected = evaluator.evaluate()["sem_seg"]
    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    counts = compare_segmentation(name, entries).confusion.counts
    assert mean_iou(counts) == pytest.approx(expected["mIoU"])
    by_class = [expected[f"IoU-{label}"] for label in ("sky", "tree", "road")]
    assert class_iou(counts) == pytest.approx(by_class)


def test_category_ids_of_a_segmentation_become_classes(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    MetadataCatalog.get(name).stuff_dataset_id_to_contiguous_id = {92: 0, 180: 1}
    record = DatasetCatalog.get(name)[0]
    counts = compare_segmentation(name, segments(record, [[92, 180]])).confusion.counts
    assert counts.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="unknown category 0"):
        compare_segmentation(name, segments(record, [[0, 180]]))


@pytest.mark.parametrize(
    "predicted, words",
    [
        ([[0, 1, 0]], "shape"),
        ([[0, 2]], "value 2"),
        (None, "1 images of the dataset have no prediction"),
    ],
)
def test_a_segmentation_that_does_not_fit_is_refused(registered, tmp_path, predicted, words):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    record = DatasetCatalog.get(name)[0]
    entries = [] if predicted is None else segments(record, predicted)
    with pytest.raises(ValueError, match=words):
        compare_segmentation(name, entries)


def test_a_segmentation_with_holes_or_of_another_image_is_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 1]]], ["sky", "tree"])
    entries = segments(DatasetCatalog.get(name)[0], [[0, 1]])
    with pytest.raises(ValueError, match="pixels without a class"):
        compare_segmentation(name, entries[:1])
    with pytest.raises(ValueError, match="not in the dataset.*other.jpg"):
        compare_segmentation(name, [*entries, {**entries[0], "file_name": "other.jpg"}])


def test_labels_above_the_number_of_classes_are_refused(registered, tmp_path):
    name = registered.semantic(tmp_path, [[[0, 2]]], ["sky", "tree"])
    with pytest.raises(ValueError, match="0.png has the value 2.*2 classes"):
        compare_segmentation(name, segments(DatasetCatalog.get(name)[0], [[0, 1]]))


# Tables and pictures


def many_classes(count: int) -> Confusion:
    """Class i is missed i times and found 100 times."""
    counts = np.zeros((count + 1, count + 1), np.int64)
    counts[range(count), range(count)] = 100
    counts[:count, count] = range(count)
    names = tuple(f"class {number}" for number in range(count))
    return Confusion(counts, (*names, "background"), (*names, "missed"), counts.sum(axis=1))


def test_of_many_classes_those_with_most_confusion_are_shown():
    shown = many_classes(40).most_confused()
    assert shown.rows == (*(f"class {number}" for number in range(10, 40)), "background")
    assert shown.columns[-1] == "missed" and shown.hidden == 10
    assert shown.counts[:, -1].tolist() == [*range(10, 40), 0]
    assert many_classes(30).most_confused().hidden == 0


def table_of(counts: list[list[int]]) -> Confusion:
    counts = np.array(counts)
    return Confusion(counts, ("a", "b", "c"), ("a", "b", "c"), counts.sum(axis=1))


def test_shares_count_the_columns_that_are_not_shown():
    shown = table_of([[4, 2, 2], [0, 9, 1], [6, 0, 0]]).most_confused(2)
    assert shown.rows == shown.columns == ("a", "c")
    assert shown.shares.tolist() == [[0.5, 0.25], [1, 0]]


def test_shares_of_a_class_without_objects_are_0():
    assert table_of([[4, 0, 4], [0, 9, 0], [0, 0, 0]]).shares[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "counts", [[[9, 0, 0], [3, 9, 0], [3, 0, 9]], [[9, 3, 3], [0, 9, 0], [0, 0, 9]]]
)
def test_confusion_is_to_be_taken_for_others_and_others_for_it(counts):
    assert table_of(counts).most_confused(1).rows == ("a",)


def test_tables_can_be_read(compared):
    detections = compared([*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)])
    lines = precision_text(precisions(detections)).splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[4].split() == ["cat", "50.5", "50.5", "50.5", "-", "50.5", "-"]
    table = object_confusion(
        match_images(detections, 0.5, 0.5).values(), detections.classes, detections.index
    )
    rows = [line.split() for line in confusion_text(table).splitlines()]
    assert rows[1] == ["1", "2", "missed"]
    assert rows[3:] == [
        ["1", "dog", "2", ".", "."],
        ["2", "cat", "1", "1", "."],
        ["background", ".", ".", "."],
    ]


def test_large_counts_are_given_in_percent():
    counts = np.array([[300_000, 100_000], [0, 5]])
    text = confusion_text(Confusion(counts, ("a", "b"), ("a", "b"), counts.sum(axis=1)))
    assert "75.0" in text and "percent" in text and "300000" not in text


def pixels(figure, folder: Path) -> np.ndarray:
    figure.savefig(folder / "figure.png", dpi=100)
    return cv2.imread(str(folder / "figure.png"))


def assert_is_a_picture(picture: np.ndarray) -> None:
    assert all(300 <= side <= 2200 for side in picture.shape[:2])
    assert len(np.unique(picture.astype(int) @ [1, 256, 65536])) > 20  # colours


@pytest.mark.parametrize("count", [1, 5, 80])
def test_the_heat_map_is_a_picture_of_readable_size(count, tmp_path):
    figure = draw_confusion(many_classes(count), "title")
    assert len(figure.axes[0].get_yticks()) == min(count, 30) + 1
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[-2:] == [f"class {count - 1}", "missed"]
    assert_is_a_picture(pixels(figure, tmp_path))


def test_precision_recall_curves_are_those_of_the_classes(compared, tmp_path):
    evaluation = evaluate(compared([*PERFECT[:3], found(2, DOG, MEDIUM, 0.8)]), "bbox")
    figure = draw_precision_recall(evaluation, ["dog", "cat"], "title")
    for axes in figure.axes[:2]:
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert list(lines) == ["dog", "cat", "mean"]
        assert lines["cat"].tolist() == pytest.approx([1] * 51 + [0] * 50)
        assert lines["mean"].tolist() == pytest.approx([1] * 51 + [0.5] * 50)
    assert_is_a_picture(pixels(figure, tmp_path))


def test_a_class_without_objects_has_no_curve_and_no_part_in_the_mean(compared):
    evaluation = evaluate(
        compared(PERFECT, [one for one in TRUTH if one["category_id"] == DOG]), "bbox"
    )
    axes = draw_precision_recall(evaluation, ["dog", "cat"], "title").axes[0]
    assert [line.get_label() for line in axes.lines] == ["dog", "mean"]
    assert axes.lines[-1].get_ydata().tolist() == pytest.approx([1] * 101)


def caption_has(picture: np.ndarray, colour: tuple[float, float, float]) -> bool:
    difference = picture[:CAPTION].astype(int) - np.round(255 * np.array(colour)).astype(int)
    return bool((np.abs(difference).max(axis=2) <= 3).any())


def test_a_picture_of_detections_names_what_became_of_them(compared, tmp_path):
    detections = compared([PERFECT[0], found(1, CAT, [60, 2, 20, 20])])
    matches = match_images(detections, 0.5, 0.5)[1]
    picture = draw_detections(str(tmp_path / "1.png"), matches, detections)
    assert_is_a_picture(picture)
    left, right = np.array_split(picture, 2, axis=1)
    assert caption_has(left, RIGHT) and caption_has(left, MISSED) and not caption_has(left, FALSE)
    assert caption_has(right, RIGHT) and caption_has(right, FALSE)
    assert not caption_has(right, MISSED)


def test_images_without_objects_or_detections_are_drawn(compared, tmp_path):
    detections = compared([found(2, CAT, SMALL)], TRUTH[:1])
    for image, one in match_images(detections, 0.5, 0.5).items():
        assert_is_a_picture(draw_detections(str(tmp_path / f"{image}.png"), one, detections))


@pytest.mark.parametrize("size, height", [((30, 40), 400), ((600, 500), 600), ((2000, 900), 1000)])
def test_pictures_have_a_size_that_can_be_looked_at(compared, tmp_path, size, height):
    cv2.imwrite(str(tmp_path / "any.png"), np.zeros((*size, 3), np.uint8))
    detections = compared([])
    picture = draw_detections(str(tmp_path / "any.png"), match([], [], 0.5), detections)
    assert picture.shape[0] == height + CAPTION


def test_polygons_and_degenerate_polygons_are_drawn(compared, tmp_path):
    truth = [
        an_object(1, DOG, SMALL, segmentation=[[5, 5, 25, 5, 25, 25], [1, 1]]),
        an_object(1, CAT, MEDIUM, segmentation=[[1, 1]]),
    ]
    detections = compared([], truth)
    one = match_images(detections, 0.5, 0.5)[1]
    assert_is_a_picture(draw_detections(str(tmp_path / "1.png"), one, detections))


def test_a_segmentation_is_drawn_in_the_same_colours_on_both_sides(registered, tmp_path):
    truth = np.zeros((60, 80), int)
    truth[:, 40:] = 1
    truth[:10] = 255
    name = registered.semantic(tmp_path, [truth], ["sky", "tree"])
    predicted = np.where(truth == 255, 0, truth)
    compared = compare_segmentation(name, segments(DatasetCatalog.get(name)[0], predicted))
    picture = draw_segmentation(compared.images[0], ["sky", "tree"], 100.0)
    assert_is_a_picture(picture)
    left, right = np.array_split(picture[CAPTION:].astype(int), 2, axis=1)
    assert np.abs(left[100:] - right[100:])[:, :-20].mean() < 5  # but for where texts lie
    assert np.abs(left[:50] - right[:50])[:, :-20].mean() > 20  # the ignored pixels


# The curves of a training


def test_metrics_of_a_resumed_training_are_those_written_last(tmp_path):
    lines = [
        {"iteration": 19, "total_loss": 3.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 2.0, "lr": 0.2},
        {"iteration": 19, "total_loss": 2.5},
        {"iteration": 29, "total_loss": 2.0},
        {"iteration": 39, "total_loss": 1.5, "bbox/AP": float("nan")},
    ]
    file = tmp_path / "metrics.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    series = read_metrics(file)
    assert list(series["total_loss"].items()) == [(19, 2.5), (29, 2.0), (39, 1.5)]
    assert series["lr"] == {19: 0.1, 39: 0.2}


@pytest.mark.parametrize("line", ['{"iteration": 3, "tot', '{"lr": 1}', "[1]", "3"])
def test_a_broken_line_of_metrics_is_named(tmp_path, line):
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1}\n' + line)
    with pytest.raises(ValueError, match="line 2 of .*metrics.json"):
        read_metrics(file)


def test_training_curves_show_losses_learning_rate_and_scores(tmp_path):
    values = {10: 2.0, 20: 1.0}
    names = ["total_loss", "loss_cls", "lr", "bbox/AP", "bbox/AP-cat", "sem_seg/mIoU", "time"]
    figure = draw_training(dict.fromkeys(names, values))
    shown = [[line.get_label() for line in axes.lines] for axes in figure.axes]
    assert shown == [["total_loss", "loss_cls"], ["lr"], ["bbox/AP", "sem_seg/mIoU"]]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[10, 2], [20, 1]]
    assert_is_a_picture(pixels(figure, tmp_path))


def test_without_curves_there_is_no_picture():
    assert draw_training({"time": {1: 2.0}}) is None
