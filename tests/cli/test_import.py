"""Another project's model through the tools: ``--import`` adds its keys and registrations."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import tool

from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset

PROJECT = "small_project:add_slots_config"
CONFIG = """\
MODEL:
  META_ARCHITECTURE: SlotDetector
  DEVICE: cpu
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  BACKBONE: {NAME: build_swinv2_backbone}
  SWINV2:
    OUT_FEATURES: [res5]
    EMBED_DIM: 16
    DEPTHS: [1, 1, 1, 1]
    NUM_HEADS: [1, 2, 4, 8]
    WINDOW_SIZE: 4
  SLOTS: {COUNT: 5, NUM_CLASSES: 5}
INPUT: {FORMAT: RGB, MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.002, WARMUP_ITERS: 2, LR_SCHEDULER_NAME: WarmupPolyLR}
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DemoDataset:
    folder = tmp_path_factory.mktemp("data") / "demo"
    return generate_demo_dataset(folder, num_train=6, num_val=4, image_size=64)


@pytest.fixture(scope="module")
def opts(dataset):
    """Overrides for the data, which is tested on what it is trained on."""
    found = []
    for split in ("TRAIN", "TEST"):
        key = f"DATASETS.CUSTOM.{split}"
        found += [f"{key}.NAME", f"slots_{split.lower()}", f"{key}.JSON", str(dataset.train_json)]
        found += [f"{key}.IMAGES", str(dataset.train_images)]
    yield found
    for name in ("slots_train", "slots_test"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("config") / "slots.yaml"
    file.write_text(CONFIG)
    return str(file)


def run(config: str, opts: list[str], output: Path, *flags: str, project: str | None = PROJECT):
    train_net = tool("train_net")
    flags += ("--import", project) if project else ()
    return train_net.main(
        train_net.parser().parse_args(
            ["--config-file", config, *flags, *opts, "OUTPUT_DIR", str(output)]
        )
    )


@pytest.fixture(scope="module")
def trained(config, opts, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run")
    run(config, [*opts, "SOLVER.MAX_ITER", "60", "SOLVER.CHECKPOINT_PERIOD", "30"], output)
    return output


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_a_projects_model_trains_and_evaluates(trained):
    losses = [line["total_loss"] for line in metrics(trained) if "total_loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert [line for line in metrics(trained) if "bbox/AP" in line][-1]["bbox/AP50"] > 0


def test_a_projects_training_resumes_exactly(trained, config, opts, tmp_path):
    halved = [*opts, "SOLVER.MAX_ITER", "60", "SOLVER.CHECKPOINT_PERIOD", "30"]
    (tmp_path / "model_0000029.pth").write_bytes((trained / "model_0000029.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    run(config, halved, tmp_path, "--resume")
    weights = [
        torch.load(folder / "model_final.pth", weights_only=False)["model"]
        for folder in (trained, tmp_path)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_written_config_needs_the_import_and_says_which(trained, opts, tmp_path):
    written = str(trained / "config.yaml")
    weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    with pytest.raises(SystemExit, match=re.escape(f"was written with --import {PROJECT}: add it")):
        run(written, weights, tmp_path, "--eval-only", project=None)
    results = run(written, weights, tmp_path, "--eval-only")
    last = [line for line in metrics(trained) if "bbox/AP" in line][-1]
    assert results["bbox"]["AP"] == last["bbox/AP"]


def test_a_projects_model_predicts_from_the_output_folder(trained, dataset, tmp_path, capsys):
    picture = str(next(Path(dataset.train_images).glob("*")))
    given = ["--input", picture, "--output", str(tmp_path / "drawn"), "--confidence", "0.0"]
    given = ["--config-file", str(trained / "config.yaml"), *given]
    weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    with pytest.raises(SystemExit, match=f"--import {PROJECT}: add it"):
        tool("predict").main([*given, *weights])
    tool("predict").main([*given, "--import", PROJECT, *weights])
    found = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    assert "1 file drawn" in capsys.readouterr().out and found


def test_an_analysis_takes_the_import(trained, tmp_path):
    tool("analyze_results").main(
        ["--config-file", str(trained / "config.yaml"), "--import", PROJECT]
        + ["--output", str(tmp_path / "analysis")]
    )
    assert (tmp_path / "analysis" / "results.json").exists()
