"""``predict --shards`` and ``merge_predictions``: what users see of a run over many images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from shard_runs import lines, require_exactly_once, results
from small_predictor import CLASSES, write_images, write_model

from swinv2_backbone.cli import merge_predictions, predict
from swinv2_backbone.d2.inference.predictor import load_predictor
from swinv2_backbone.d2.inference.scale.run_record import find_run
from swinv2_backbone.d2.inference.tiling import Tiling, predict_tiled


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("detector"))


@pytest.fixture
def images(tmp_path, monkeypatch) -> list[Path]:
    """Five images in two sizes in the working directory."""
    monkeypatch.chdir(tmp_path)
    small = write_images(Path("images"), 3)
    write_images(Path("images/more"), 2, (40, 30))
    return [*small, Path("images/more/00000.png"), Path("images/more/00001.png")]


def command(config: Path, *more: str) -> list[str]:
    given = ["--config-file", str(config), "--input", "images", "--recursive", "--confidence", "0"]
    return [*given, "--shards", "out", "--shard-size", "2", *more]


def test_results_equal_those_of_the_predictor_and_merge_into_a_coco_file(
    detector, images, capsys, monkeypatch
):
    predict.main(command(detector))
    predictor = load_predictor(str(detector), confidence=0)
    found = results(find_run(Path("out")))
    require_exactly_once(found, [str(path) for path in images])
    for one in found:
        image = predictor.read(one["file_name"])
        (expected,) = predictor.predict_batch([image])
        assert (one["height"], one["width"]) == image.shape[:2]
        assert one["detections"] == predictor.records(expected)["detections"]
    assert "5 of 5 images (100.0%)" in capsys.readouterr().err
    merge_predictions.main(["out", "all.json"])
    merged = COCO("all.json")
    assert [one["name"] for one in merged.loadCats(merged.getCatIds())] == CLASSES
    for image in found:
        shown = merged.loadAnns(merged.getAnnIds(image["image_id"]))
        names = [CLASSES[one["category_id"] - 1] for one in shown]
        assert names == [one["category"] for one in image["detections"]]
        for key in ("bbox", "score", "segmentation"):
            assert [one[key] for one in shown] == [one[key] for one in image["detections"]]
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)  # no model is built
    predict.main(command(detector))
    assert "out has the results of all 5 images" in capsys.readouterr().out


def test_a_run_is_continued_with_the_same_options_model_and_images_only(detector, images, capsys):
    predict.main(command(detector))
    kept = lines(Path("out/predictions-00000-of-00003.jsonl"))
    Path("out/predictions-00001-of-00003.jsonl").unlink()
    write_images(Path("images/another"), 1)
    for more, message in (
        (["--confidence", "0.1"], "--confidence: 0.0 then, 0.1 now"),
        (["MODEL.RPN.NMS_THRESH", "0.5"], "MODEL.RPN.NMS_THRESH: '0.7' then, '0.5' now"),
    ):
        with pytest.raises(SystemExit, match="(?s)run with other settings.*" + message):
            predict.main(command(detector, *more))
    weights = torch.load(detector.parent / "model.pth")["model"]
    next(iter(weights.values())).add_(1)
    torch.save({"model": weights}, "other.pth")
    with pytest.raises(SystemExit, match="out has results of a model with other weights"):
        predict.main(command(detector, "MODEL.WEIGHTS", "other.pth"))
    with pytest.raises(SystemExit, match="results of 1 of 3 shards are missing in out"):
        merge_predictions.main(["out", "all.json"])
    predict.main(command(detector))
    require_exactly_once(results(find_run(Path("out"))), [str(path) for path in images])
    assert lines(Path("out/predictions-00000-of-00003.jsonl")) == kept


def test_failed_images_are_named_and_can_be_tried_again(detector, images, capsys):
    whole = images[3].read_bytes()
    images[3].write_bytes(whole[:60])
    predict.main(command(detector))
    assert "1 images failed, as their results tell:\nimages/more/00000.png: Damaged" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match="1 images failed:\nimages/more/00000.png: Damaged"):
        merge_predictions.main(["out", "all.json"])
    merged = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert [one["image_id"] for one in merged["failed"]] == [3] and len(merged["images"]) == 4
    images[3].write_bytes(whole)
    merge_predictions.main(["out", "--remove-failed"])
    assert find_run(Path("out")).missing() == [1]
    predict.main(command(detector))
    require_exactly_once(results(find_run(Path("out"))), [str(path) for path in images])


def test_class_numbers_and_panoptic_segments_are_run_lengths(images, tmp_path):
    semantic = write_model(tmp_path / "semantic", "upernet_swinv2_tiny_ade20k")
    predict.main(command(semantic))
    predictor = load_predictor(str(semantic))
    for one in results(find_run(Path("out"))):
        labels = predictor(predictor.read(one["file_name"])).labels
        for region in one["regions"]:
            mask = coco_mask.decode(region["segmentation"])
            assert np.array_equal(mask, labels == CLASSES.index(region["category"]))
        assert len(one["regions"]) == len(np.unique(labels))
    merge_predictions.main(["out", "all.json"])
    shown = json.loads(Path("all.json").read_text(encoding="utf-8"))["annotations"]
    assert sum(one["area"] for one in shown) == 3 * 32 * 32 + 2 * 40 * 30


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output", "drawn"], "--shards DIR takes the place of --output"),
        (["--shard-size", "0"], "--shard-size must be at least 1, got 0"),
        (["--workers", "2"], "add --ray, or use torchrun"),
    ],
)
def test_options_that_contradict_each_other_are_refused(detector, images, more, message):
    with pytest.raises(SystemExit, match=message):
        predict.main(command(detector, *more))
    assert not Path("out").exists()


def test_a_model_that_cannot_be_loaded_begins_no_run(detector, images):
    with pytest.raises(SystemExit, match="gone.pth"):
        predict.main(command(detector, "MODEL.WEIGHTS", "gone.pth"))
    assert find_run(Path("out")) is None


def test_many_processes_are_refused_where_each_would_write_the_same(detector, images, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = ["--config-file", str(detector), "--input", "images", "--output", "drawn"]
    with pytest.raises(SystemExit, match="several processes write --shards DIR"):
        predict.main(given)
    with pytest.raises(SystemExit, match="torchrun"):
        predict.main(command(detector, "--ray"))
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(SystemExit, match="RANK must be from 0 to WORLD_SIZE - 1, got 2 of 2"):
        predict.main(command(detector))


def test_the_lines_of_progress_are_few(detector, images, capsys):
    Image.new("RGB", (32, 32)).save("images/x.png")
    predict.main(command(detector))
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1 and shown[0].endswith("0:00:00 left")


def test_large_pictures_are_predicted_by_tiles(detector, images):
    """The results are those of predict_tiled, and belong to a run of the same tiles."""
    write_images(Path("images/large"), 1, (100, 130))
    predict.main(command(detector, "--tile", "64", "--overlap", "32"))
    predictor = load_predictor(str(detector), confidence=0)
    for one in results(find_run(Path("out"))):
        found = predict_tiled(predictor, one["file_name"], Tiling(64, 32))
        assert one["detections"] == predictor.records(found)["detections"]
        assert (one["height"], one["width"]) == found.instances.image_size
    with pytest.raises(SystemExit, match="--tile: 64 then, None now"):
        predict.main(command(detector))
