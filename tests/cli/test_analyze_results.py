"""tools/analyze_results.py: from the files of a run to a folder of pictures and numbers."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from analysis_cases import (
    CAT,
    DOG,
    MEDIUM,
    PERFECT,
    TRUTH,
    caption_has,
    found,
    registered_datasets,
    rle,
    segments,
    write_coco,
)
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import ROOT
from scripts import tool as load

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.evaluation.analysis.pictures import MISSED
from swinv2_backbone.d2.evaluation.analysis.run import open_run

SCRIPT = ROOT / "tools" / "analyze_results.py"
METRICS = [
    {"iteration": 19, "total_loss": 3.0, "loss_cls": 2.0, "lr": 0.01},
    {"iteration": 39, "total_loss": 2.0, "loss_cls": 1.5, "lr": 0.01, "bbox/AP": 1.0},
]


@pytest.fixture
def registered():
    """Register datasets; remove them after the test."""
    with registered_datasets() as register:
        yield register


@pytest.fixture(scope="module")
def tool():
    return load("analyze_results")


def write_run(folder: Path, files: dict[str, list], opts: list[str], metrics=None) -> Path:
    """Write the files of a finished run; return its config."""
    (folder / "inference").mkdir(parents=True)
    for name, entries in files.items():
        (folder / "inference" / name).write_text(json.dumps(entries))
    if metrics is not None:
        (folder / "metrics.json").write_text("".join(json.dumps(one) + "\n" for one in metrics))
    cfg = load_config("", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(folder), *opts])
    path = folder / "config.yaml"
    path.write_text(cfg.dump())
    return path


DETECTIONS, SEGMENTS = "coco_instances_results.json", "sem_seg_predictions.json"
# One cat is taken for a dog, one dog is missed, and there is a false cat.
WRONG = [PERFECT[0], found(1, DOG, MEDIUM), PERFECT[3], found(2, CAT, [5, 60, 20, 20])]


@pytest.fixture
def run_of(tmp_path, registered):
    """Return a function that writes a detection run and returns its config file."""

    def build(detections: list[dict], metrics=None, files=None) -> str:
        name = registered(tmp_path / "data", TRUTH)
        files = {DETECTIONS: detections} if files is None else files
        return str(write_run(tmp_path / "run", files, ["DATASETS.TEST", f"('{name}',)"], metrics))

    return build


def analyze(tool, config: str, output: Path, *arguments: str) -> dict:
    tool.main(["--config-file", config, "--output", str(output), *arguments])

    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    return json.loads((output / "results.json").read_text(), parse_constant=refuse)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_detection_run_becomes_numbers_and_pictures(tool, run_of, tmp_path, capsys):
    masks = [{**one, "segmentation": rle(one["bbox"])} for one in WRONG]
    results = analyze(tool, run_of(masks, METRICS), tmp_path / "out")["detection"]
    assert results["confusion"] == {
        "rows": ["dog", "cat", "background"],
        "columns": ["dog", "cat", "missed"],
        "counts": [[1, 0, 1], [1, 1, 0], [0, 1, 0]],
    }
    assert results["AP"]["bbox"]["classes"]["dog"]["APl"] is None
    assert set(results["AP"]) == {"bbox", "segm"}
    first, second = results["worst"]
    assert (first["missed"], first["false"], first["wrong_class"]) == (1, 1, 0)
    assert (second["missed"], second["false"], second["wrong_class"]) == (0, 0, 1)
    assert [Path(one["file_name"]).name for one in (first, second)] == ["2.png", "1.png"]
    pictures = {"worst/worst_001_2.png", "worst/worst_002_1.png"}
    assert {one["picture"] for one in (first, second)} == pictures
    errors = results["errors"]
    counts = {kind: one["count"] for kind, one in errors.items() if one["count"]}
    assert counts == {"class": 1, "background": 1, "missed": 1}
    assert errors["missed"]["AP50_lost"] > 0 and errors["location"]["picture"] is None
    sheets = {one["picture"] for one in errors.values() if one["picture"]}
    assert files_in(tmp_path / "out") == pictures | sheets | {
        "results.json",
        "confusion.png",
        "precision_recall_bbox.png",
        "precision_recall_segm.png",
        "training.png",
    }
    for name in files_in(tmp_path / "out") - {"results.json"}:
        picture = cv2.imread(str(tmp_path / "out" / name))
        assert all(200 <= side <= 2200 for side in picture.shape[:2]), name
    written = cv2.imread(str(tmp_path / "out" / first["picture"]))
    assert caption_has(written[:, :, ::-1], MISSED)  # OpenCV reads BGR
    printed = capsys.readouterr().out
    assert "AP50 lost" in printed and "swinv2 suggest" in printed
    assert "APs" in printed and "missed" in printed and str(tmp_path / "out") in printed


def test_a_perfect_run_has_ap_100_and_no_worst_images(tool, run_of, tmp_path):
    results = analyze(tool, run_of(PERFECT), tmp_path / "out")["detection"]
    assert results["AP"]["bbox"]["all"]["AP"] == pytest.approx(100)
    assert results["worst"] == [] and not any((tmp_path / "out" / "worst").iterdir())


def test_a_run_without_detections_is_analyzed(tool, run_of, tmp_path):
    results = analyze(tool, run_of([]), tmp_path / "out")["detection"]
    assert results["AP"]["bbox"]["all"]["AP"] == 0
    assert [one["missed"] for one in results["worst"]] == [2, 2]


def test_iou_confidence_and_worst_are_used(tool, run_of, tmp_path):
    config = run_of([found(1, DOG, [5, 5, 20, 15], 0.4), found(2, DOG, [5, 5, 20, 20], 0.2)])
    options = ["--iou", "0.8", "--confidence", "0.3", "--worst", "1"]
    results = analyze(tool, config, tmp_path / "out", *options)["detection"]
    assert results["confusion"]["counts"] == [[0, 0, 2], [0, 0, 2], [1, 0, 0]]
    assert (results["iou"], results["confidence"], len(results["worst"])) == (0.8, 0.3, 1)


def test_a_semantic_run_becomes_numbers_and_pictures(tool, registered, tmp_path):
    truth = np.zeros((40, 60), int)
    truth[20:] = 1
    name = registered.semantic(tmp_path / "data", [truth, truth], ["sky", "tree"])
    first, second = DatasetCatalog.get(name)
    predicted = truth.copy()
    predicted[:10] = 1
    entries = segments(first, truth) + segments(second, predicted)
    config = write_run(tmp_path / "run", {SEGMENTS: entries}, ["DATASETS.TEST", f"('{name}',)"])
    results = analyze(tool, str(config), tmp_path / "out")["semantic"]
    assert results["confusion"]["counts"] == [[1800, 600], [0, 2400]]
    assert results["IoU"] == pytest.approx({"sky": 75, "tree": 80})
    assert results["mIoU"] == pytest.approx(77.5)
    (worst,) = results["worst"]
    assert worst["file_name"] == second["file_name"]
    assert worst["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    pictures = {"pixel_confusion.png", worst["picture"]}
    assert files_in(tmp_path / "out") == pictures | {"results.json"}
    for picture in pictures:
        assert min(cv2.imread(str(tmp_path / "out" / picture)).shape[:2]) >= 300


def change_metadata(name: str, **changes) -> None:
    """Replace metadata of Detectron2, which cannot be changed once they are set."""
    before = MetadataCatalog.pop(name).as_dict()
    MetadataCatalog.get(name).set(**{**before, **changes})


def panoptic(registered, folder: Path) -> tuple[str, list[dict]]:
    """Register a panoptic dataset, and write a perfect segmentation of it."""
    name = registered(folder, TRUTH)
    records, entries = DatasetCatalog.get(name), []
    for record in records:
        labels = np.zeros((120, 100), np.uint8)
        labels[60:] = 1
        record["sem_seg_file_name"] = record["file_name"].replace(".png", "_labels.png")
        cv2.imwrite(record["sem_seg_file_name"], labels)
        entries += segments(record, labels)
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    more = {"stuff_classes": ["things", "grass"], "ignore_label": 255}
    change_metadata(name, evaluator_type="coco_panoptic_seg", **more)
    return name, entries


@pytest.mark.parametrize("kinds", ["both", "detection", "semantic"])
def test_a_panoptic_run_is_analyzed_as_far_as_it_has_results(tool, registered, tmp_path, kinds):
    name, entries = panoptic(registered, tmp_path / "data")
    files = {DETECTIONS: WRONG, SEGMENTS: entries}
    if kinds != "both":
        files.pop(SEGMENTS if kinds == "detection" else DETECTIONS)
    config = write_run(tmp_path / "run", files, ["DATASETS.TEST", f"('{name}',)"])
    results = analyze(tool, str(config), tmp_path / "out")
    expected = {"detection", "semantic"} if kinds == "both" else {kinds}
    assert set(results) == {"config_file", "dataset"} | expected
    if "semantic" in expected:
        assert results["semantic"]["mIoU"] == pytest.approx(100)


def test_given_predictions_on_a_panoptic_dataset_are_recognized_by_their_keys(registered, tmp_path):
    name, entries = panoptic(registered, tmp_path / "data")
    config = write_run(tmp_path / "run", {}, ["DATASETS.TEST", f"('{name}',)"])
    given = tmp_path / "given.json"
    for kind, some in (("detection", WRONG), ("semantic", entries)):
        given.write_text(json.dumps(some))
        run = open_run(str(config), predictions=given)
        assert run.files == {kind: given} and run.predictions == {kind: some}


# Existing files


def test_an_earlier_analysis_is_not_overwritten_unasked(tool, run_of, tmp_path):
    config, out = run_of(WRONG), tmp_path / "out"
    analyze(tool, config, out)
    before = {name: (out / name).stat().st_mtime_ns for name in files_in(out)}
    with pytest.raises(SystemExit, match="^ValueError: .*not empty.*--overwrite"):
        analyze(tool, config, out)
    assert before == {name: (out / name).stat().st_mtime_ns for name in files_in(out)}


def test_overwriting_removes_stale_files_and_keeps_the_users(tool, run_of, tmp_path):
    masks = [{**one, "segmentation": rle(one["bbox"])} for one in WRONG]
    config, out = run_of(masks, METRICS), tmp_path / "out"
    analyze(tool, config, out)
    assert {"training.png", "precision_recall_segm.png"} <= files_in(out)
    for name in ("mine.png", "worst/mine.png"):
        (out / name).write_text("mine")
    run = tmp_path / "run"
    (run / "metrics.json").unlink()
    (run / "inference" / DETECTIONS).write_text(json.dumps(WRONG))  # no masks
    analyze(tool, config, out, "--overwrite", "--worst", "1")
    own = {"results.json", "confusion.png", "precision_recall_bbox.png", "worst/worst_001_2.png"}
    own |= {f"errors_{kind}.png" for kind in ("class", "background", "missed")}
    assert files_in(out) == own | {"mine.png", "worst/mine.png"}


def test_an_output_that_is_a_file_is_refused(tool, run_of, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit, match="^ValueError: .*is a file"):
        analyze(tool, run_of(PERFECT), tmp_path / "out")


def test_nothing_is_written_if_predictions_do_not_match(tool, run_of, tmp_path):
    with pytest.raises(SystemExit, match="^ValueError: .*another dataset"):
        analyze(tool, run_of([found(99, DOG, MEDIUM)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Missing files


def test_missing_predictions_are_reported_with_the_command_that_makes_them(tool, run_of, tmp_path):
    config = run_of([], files={})
    words = f"swinv2 eval {config} MODEL.WEIGHTS"
    with pytest.raises(SystemExit, match=f"^ValueError: .*{words}"):
        analyze(tool, config, tmp_path / "out")


@pytest.mark.parametrize("metrics", [None, [{"iteration": 1, "time": 0.5}]])
def test_a_run_without_curves_says_so(tool, run_of, tmp_path, capsys, metrics):
    analyze(tool, run_of(PERFECT, metrics), tmp_path / "out")
    assert "No training curves" in capsys.readouterr().out
    assert not (tmp_path / "out" / "training.png").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "cannot be read"),
        ("{", "incomplete or damaged"),
        ('{"a": 1}', "not a list"),
        ('[{"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}]', "entry 0 of .* has no score"),
    ],
)
def test_files_that_are_not_predictions_are_refused(tool, run_of, tmp_path, text, words):
    given = tmp_path / "given.json"
    if text is not None:
        given.write_text(text)
    with pytest.raises(SystemExit, match=f"^ValueError: .*{words}"):
        analyze(tool, run_of([]), tmp_path / "out", "--predictions", str(given))


@pytest.mark.parametrize(
    "option, value", [("--iou", "0"), ("--iou", "1.1"), ("--confidence", "-1"), ("--worst", "-1")]
)
def test_impossible_numbers_are_refused(tool, run_of, tmp_path, option, value):
    with pytest.raises(SystemExit, match=f"^ValueError: .*{option} must be"):
        analyze(tool, run_of([]), tmp_path / "out", option, value)


# Datasets


def test_one_of_several_datasets_is_chosen(registered, tmp_path):
    first, last = [registered(tmp_path / folder, TRUTH) for folder in ("a", "b")]
    opts = ["DATASETS.TEST", f"('{first}', '{last}')"]
    config = str(write_run(tmp_path / "run", {DETECTIONS: PERFECT}, opts))
    given = tmp_path / "run" / "inference" / DETECTIONS
    assert open_run(config, predictions=given).dataset == first
    assert open_run(config, dataset=last, predictions=given).dataset == last
    assert open_run(config, dataset=last).dataset == last


def test_predictions_on_the_last_dataset_are_not_taken_for_those_on_the_first(registered, tmp_path):
    names = [registered(tmp_path / folder, TRUTH) for folder in ("a", "b")]
    config = str(write_run(tmp_path / "run", {DETECTIONS: PERFECT}, ["DATASETS.TEST", f"{names}"]))
    with pytest.raises(ValueError, match=f"{names[1]}.* evaluated last.*--predictions"):
        open_run(config)


def test_a_dataset_that_cannot_be_analyzed_is_refused(run_of, registered, tmp_path):
    config = run_of(PERFECT)
    with pytest.raises(ValueError, match="'other' is not in DATASETS.TEST"):
        open_run(config, dataset="other")
    with pytest.raises(ValueError, match="'nowhere'.*not registered"):
        open_run(config, ["DATASETS.TEST", "('nowhere',)"])
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"):
        open_run(config, ["DATASETS.TEST", "()"])
    name = registered(tmp_path / "voc", TRUTH)
    change_metadata(name, evaluator_type="pascal_voc")
    with pytest.raises(ValueError, match="evaluator_type 'pascal_voc'"):
        open_run(config, ["DATASETS.TEST", f"('{name}',)"])


def test_a_run_on_own_data_with_a_gpu_is_analyzed_on_any_machine(tool, registered, tmp_path):
    truth, name = write_coco(tmp_path / "data", TRUTH), f"{tmp_path.name}_own"
    custom = {"NAME": name, "JSON": truth, "IMAGES": truth.parent}
    opts = [str(one) for key in custom for one in (f"DATASETS.CUSTOM.TEST.{key}", custom[key])] + [
        "MODEL.ROI_HEADS.NUM_CLASSES",
        "2",
    ]
    config = write_run(tmp_path / "run", {DETECTIONS: PERFECT}, opts)
    text = config.read_text()
    assert "DEVICE: cpu" in text and "DTYPE: bfloat16" in text
    text = text.replace("DEVICE: cpu", "DEVICE: cuda").replace("DTYPE: bfloat16", "DTYPE: float16")
    config.write_text(text)
    registered.names.append(name)  # to be removed
    arguments = ["SOLVER.AMP.ENABLED", "True"]
    assert analyze(tool, str(config), tmp_path / "out", *arguments)["dataset"] == name


def test_an_error_that_the_user_can_fix_has_no_traceback(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = ["--config-file", "config.yaml", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit, match="^ValueError: --output .* is not empty"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
