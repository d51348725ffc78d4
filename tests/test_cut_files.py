"""A file of an earlier command that is cut short is named with the remedy, or made anew.

Checkpoints are tested in checkpoints/test_durable.py, exported files in export/test_cut_exports.py,
and metrics.json with its readers.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from PIL import Image
from scenes import forms
from shard_runs import begin, predict
from small_configs import lazy_config, register_small_datasets, remove_small_datasets, yaml_config
from torch import nn

from swinv2_backbone.checkpoints.pretrained_sources import settings_beside
from swinv2_backbone.checkpoints.records import read_record_or
from swinv2_backbone.d2.config.cut_short import refuse_cut
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.data.datasets import checked
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.converted import coco_file_of
from swinv2_backbone.d2.data.storage import digests
from swinv2_backbone.d2.data.storage.cache import Cache, Entry, stamps
from swinv2_backbone.d2.data.validation.source import open_coco
from swinv2_backbone.d2.demo import generate_demo_dataset, register_demo_panoptic
from swinv2_backbone.d2.engine.early_end import EarlyStopping
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.tracking import writer
from swinv2_backbone.d2.engine.trainer import load_plan
from swinv2_backbone.d2.evaluation.analysis.run import open_run
from swinv2_backbone.d2.evaluation.evaluators import build_evaluator
from swinv2_backbone.d2.inference.scale.merge import merge
from swinv2_backbone.d2.inference.scale.settings import MODEL
from swinv2_backbone.d2.inference.scale.sources import Source

DATE = re.compile(rb'"date_created": "[^"]*"')  # by Detectron2
CUTS = {"empty": 0.0, "middle": 0.5, "last_byte": 1.0}
REMEDY = re.compile(r"\b(copy|delete|give|write|repeat|choose)\b", re.IGNORECASE)
Case = tuple[Path, Callable[[], Any]]  # the file to cut, and its reader


def cut(path: Path, share: float) -> None:
    """Cut a file to a share of its bytes, at most all but one."""
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])


# ---- files that are named


def yaml_dialect(folder: Path) -> Case:
    path = folder / "config.yaml"
    path.write_text(yaml_config("mask_rcnn_swinv2", small=True).dump(), encoding="utf-8")
    return path, lambda: load_plan(str(path)).config.dump()


def lazy_dialect(folder: Path) -> Case:
    path = folder / "config.yaml"
    LazyConfig.save(lazy_config("mask_rcnn_swinv2", small=True), str(path))
    return path, lambda: load_plan(str(path)).run.output_dir


def predictions(folder: Path) -> Case:
    register_small_datasets(folder)
    MetadataCatalog.get("small_detection").evaluator_type = "coco"
    path = folder / "coco_instances_results.json"
    found = {"image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.5}
    path.write_text(json.dumps([found]), encoding="utf-8")
    cfg = yaml_config("mask_rcnn_swinv2", small=True)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    (folder / "small.yaml").write_text(cfg.dump(), encoding="utf-8")

    def read() -> dict:
        return open_run(str(folder / "small.yaml"), predictions=path).predictions

    return path, read


def best_record(folder: Path) -> Case:
    evaluate = Evaluate(
        1, dict, step=None, best_metric="bbox/AP", model=nn.Identity(), output_dir=folder
    )
    evaluate.trainer = SimpleNamespace(start_iter=3, max_iter=3)
    evaluate.record.write_text('{"metric": "bbox/AP", "value": 0.25}\n', encoding="utf-8")

    def read() -> float:
        evaluate.before_train()
        return evaluate.best

    return evaluate.record, read


def config_beside_weights(folder: Path) -> Case:
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text('{"depths": [2, 2, 6, 2]}\n', encoding="utf-8")
    return folder / "config.json", lambda: settings_beside(folder / "model.safetensors")


def converted_by_the_command(folder: Path) -> Case:
    from swinv2_backbone.cli import convert_dataset

    source, images = forms.labelme(folder / "labels")
    path = folder / "set.json"
    convert_dataset.main([str(source), "--images", str(images), "--output", str(path)])
    return path, lambda: open_coco(str(path))["images"]


def demo_record(folder: Path) -> Case:
    def read() -> Path:
        return generate_demo_dataset(folder / "demo", num_train=1, num_val=1, image_size=64).root

    read()
    return folder / "demo" / "demo.json", read


def demo_segments(folder: Path) -> Case:
    demo = generate_demo_dataset(folder / "demo", num_train=1, num_val=1, image_size=64)
    name = f"segments_{folder.name}"
    register_demo_panoptic(name, demo, "val", separated=False)
    return demo.split("val").panoptic_json, lambda: DatasetCatalog.get(name)


def shards(folder: Path) -> Path:
    """Predict five images in shards of two."""
    names = [str(folder / f"{number}.png") for number in range(5)]
    for name in names:
        Image.new("RGB", (6, 6)).save(name)
    run = begin(folder / "run", map(Source, names), size=2)
    (run.folder / MODEL).write_text('{"classes": ["light"]}', encoding="utf-8")
    predict(run)
    return run.folder


def merged(folder: Path) -> Callable[[], str]:
    def read() -> str:
        merge(folder, folder.parent / "merged.json")
        return (folder.parent / "merged.json").read_text(encoding="utf-8")

    return read


def shard_of_predictions(folder: Path) -> Case:
    run = shards(folder)
    return run / "predictions-00001-of-00003.jsonl", merged(run)


def record_of_shards(folder: Path) -> Case:
    run = shards(folder)
    return run / "run.json", merged(run)


def model_of_shards(folder: Path) -> Case:
    run = shards(folder)
    return run / MODEL, merged(run)


def images_of_shards(folder: Path) -> Case:
    from swinv2_backbone.d2.inference.scale.run_record import find_run

    run = find_run(shards(folder))
    assert run is not None
    return run.folder / run.images, lambda: [run.sources(shard) for shard in range(run.shards)]


NAMED = (
    *(yaml_dialect, lazy_dialect, predictions, best_record, config_beside_weights),
    *(converted_by_the_command, demo_record, demo_segments),
    *(shard_of_predictions, record_of_shards, model_of_shards, images_of_shards),
)


@pytest.fixture(autouse=True)
def forget():
    before = set(DatasetCatalog)
    yield
    if "small_detection" in DatasetCatalog:
        remove_small_datasets()
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("share", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("case", NAMED)
def test_a_cut_file_is_named_with_the_remedy(case, share, tmp_path):
    path, read = case(tmp_path)
    whole, content = read(), path.read_bytes()
    cut(path, share)
    try:
        found = read()
    except (ValueError, OSError, SystemExit) as error:  # which the commands show as one line
        text = str(error)
        assert path.name in text and REMEDY.search(text), text
        assert "incomplete" in text or "is empty" in text, text
        return
    assert share == 1 and content.endswith(b"\n"), "the cut was not noticed"
    assert found == whole


# ---- files that are made anew


def stopping_record(folder: Path) -> Case:
    hook = EarlyStopping("bbox/AP", 2, None, SimpleNamespace(evaluated=-1), folder)
    hook.trainer = SimpleNamespace(start_iter=3)

    def read() -> None:
        hook.before_train()

    hook.record.write_text("[[1, 0.5], [2, 0.6]]\n", encoding="utf-8")
    return hook.record, read


def tracking_record(folder: Path) -> Case:
    path = folder / writer.RECORD
    path.write_text('{"wandb": {"id": "a"}}\n', encoding="utf-8")

    def read() -> None:
        read_record_or({}, path, "the trackers get new runs")

    return path, read


def kept_digests(folder: Path) -> Case:
    path = folder / digests.FILE
    known = {str(number): digests.KnownDigest(1, 2, "3") for number in range(100)}
    digests.save_digests(known, folder, 0)

    def read() -> None:
        digests.load_digests(folder)

    return path, read


def kept_check(file: str) -> Callable[[Path], Case]:
    def case(folder: Path) -> Case:
        (folder / "set.json").write_text("{}", encoding="utf-8")
        names = np.frombuffer(b"a.png", np.uint8)
        arrays = {"name_text": names, "name_end": np.array([5])}
        arrays["stamps"] = stamps(folder, ["a.png"])
        cache = Cache(folder / "cache", folder / "set.json", {})

        def read() -> bool:
            there = cache.load(folder)
            return there is not None or cache.save(Entry(arrays, {"told": ""}))

        read()
        return cache.entry / file, read

    case.__name__ = f"kept_check_{file}"
    return case


def converted_dataset(folder: Path) -> Case:
    source, images = forms.labelme(folder / "labels")

    def read() -> str:
        found = coco_file_of(str(source), str(images), name="set", output_dir=str(folder))
        return Path(found.json_file).read_text(encoding="utf-8")

    read()
    return folder / "datasets" / "set_from_labelme.json", read


def mended_copy(folder: Path) -> Case:
    Image.new("L", (10, 8)).save(folder / "1.png")
    square = {"bbox": [7, 1, 4, 4], "area": 16, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 8, "width": 10}],
        "annotations": [{"id": "1", "image_id": 1, "category_id": 3, "iscrowd": 0} | square],
        "categories": [{"id": 3, "name": "fig"}],
    }
    (folder / "set.json").write_text(json.dumps(content), encoding="utf-8")
    name = f"mended_{folder.name}"
    register_coco(name, str(folder / "set.json"), str(folder), output_dir=str(folder))
    path = folder / "datasets" / f"{name}.json"

    def read() -> str:
        register_coco(name, str(folder / "set.json"), str(folder), output_dir=str(folder))
        DatasetCatalog.get(name)
        return path.read_text(encoding="utf-8")

    DatasetCatalog.get(name)
    return path, read


def detectron2s_conversion(folder: Path) -> Case:
    register_small_datasets(folder)
    metadata = MetadataCatalog.get("small_detection")
    metadata.evaluator_type = "coco"

    def read() -> list:
        metadata.__dict__.pop("json_file", None)
        return build_evaluator("small_detection", str(folder))._coco_api.dataset["annotations"]

    read()
    return folder / "small_detection_coco_format.json", read


ANEW = (
    *(stopping_record, tracking_record, kept_digests, converted_dataset, mended_copy),
    *(kept_check("entry.json"), kept_check("stamps.npy"), detectron2s_conversion),
)


@pytest.mark.parametrize("share", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("case", ANEW, ids=lambda case: case.__name__)
def test_a_cut_file_is_made_anew_and_the_log_says_so(case, share, tmp_path, caplog):
    path, read = case(tmp_path)
    whole, content = read(), path.read_bytes()
    cut(path, share)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        found = read()
    assert found == whole
    if not (share == 1 and content.endswith(b"\n")):
        assert path.name in caplog.text or path.parent.name in caplog.text, caplog.text
    if whole is not None:  # otherwise the next evaluation writes it
        assert DATE.sub(b"", path.read_bytes()) == DATE.sub(b"", content)


def test_a_config_by_hand_is_not_taken_for_a_cut_one(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "CUDNN_BENCHMARK: true\nDATALOADER:\n  NUM_WORKERS: 0\nMODEL:\n  DEVICE: cpu",
        encoding="utf-8",
    )
    assert load_plan(str(path)).config.CUDNN_BENCHMARK


def test_a_config_of_detectron2s_own_trainer_is_not_taken_for_a_cut_one(tmp_path):
    path = tmp_path / "config.yaml"
    train = {"amp": {"enabled": False}, "max_iter": 9, "output_dir": "a", "seed": -1}
    LazyConfig.save(
        OmegaConf.create({"dataloader": {}, "model": {}, "optimizer": {}, "train": train}),
        str(path),
    )
    refuse_cut(str(path))


def test_a_whole_config_without_its_last_line_break_is_not_taken_for_a_cut_one(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml_config("mask_rcnn_swinv2").dump().rstrip(), encoding="utf-8")
    refuse_cut(str(path))
    path.write_text(path.read_text(encoding="utf-8")[:-1], encoding="utf-8")
    with pytest.raises(ConfigError, match="if it is complete, add VIS_PERIOD at its end"):
        refuse_cut(str(path))


def test_a_file_of_a_user_is_not_replaced_by_a_converted_dataset(tmp_path):
    path, read = converted_dataset(tmp_path)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is in the way"):
        read()
    assert checked.MARK and path.read_text(encoding="utf-8") == "mine"
