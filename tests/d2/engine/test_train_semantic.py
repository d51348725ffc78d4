"""Semantic segmentation through the tools, small: both config systems, and the rehearsal."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import CONFIGS, tool

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset
from swinv2_backbone.d2.inference.predictor import load_predictor

NAMES = ("semantic_train", "semantic_test")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DemoDataset:
    return generate_demo_dataset(
        tmp_path_factory.mktemp("data") / "demo", num_train=6, num_val=4, image_size=64
    )


@pytest.fixture(autouse=True, scope="module")
def forget_datasets():
    yield
    for name in list(DatasetCatalog):
        if name.startswith(NAMES):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def yacs(dataset) -> list[str]:
    """Overrides that make the demo config tiny."""
    custom = "DATASETS.CUSTOM"
    return [
        *("MODEL.DEVICE", "cpu", "MODEL.SWINV2.EMBED_DIM", "16"),
        *("MODEL.SWINV2.DEPTHS", "(1, 1, 1, 1)", "MODEL.SWINV2.NUM_HEADS", "(1, 2, 4, 8)"),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
        *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.WARMUP_ITERS", "2", "SOLVER.BASE_LR", "0.001"),
        *("SOLVER.EMA.ENABLED", "False", "SOLVER.EMA.DECAY", "0.9999"),
        *("TEST.AUG.ENABLED", "False", "TEST.AUG.MAX_SIZE", "4000"),
        *(f"{custom}.NAMES", str(dataset.classes)),
        *(f"{custom}.TRAIN.NAME", NAMES[0], f"{custom}.TEST.NAME", NAMES[1]),
        *(f"{custom}.TRAIN.IMAGES", str(dataset.train_images)),
        *(f"{custom}.TRAIN.LABELS", str(dataset.train_labels)),
        # Tested on what it is trained on, so that a few iterations reach a score.
        *(f"{custom}.TEST.IMAGES", str(dataset.train_images)),
        *(f"{custom}.TEST.LABELS", str(dataset.train_labels)),
    ]


@pytest.fixture(scope="module")
def lazy(dataset) -> list[str]:
    def registered(split: str, name: str) -> list[str]:
        return [
            f"datasets.{split}.name={name}",
            f"datasets.{split}.images={dataset.train_images}",
            f"datasets.{split}.labels={dataset.train_labels}",
            f"datasets.{split}.names_file={dataset.classes}",
        ]

    return [
        *("train.device=cpu", "model.backbone.embed_dim=16", "model.backbone.depths=[1,1,1,1]"),
        *("model.backbone.num_heads=[1,2,4,8]", "dataloader.train.total_batch_size=4"),
        *("train.ema.enabled=False", "train.ema.decay=0.9999", "optimizer.params.lr=0.001"),
        *("train.test_aug.enabled=False", "train.test_aug.max_size=4000"),
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=[64]",
        *registered("train", f"{NAMES[0]}_lazy"),
        *registered("test", f"{NAMES[1]}_lazy"),
        *(f"dataloader.train.dataset.names={NAMES[0]}_lazy",),
        *(f"dataloader.test.dataset.names={NAMES[1]}_lazy",),
    ]


def run(kind: str, opts: list[str], output: Path, *flags: str) -> dict:
    """Run the tool of a config system; returns its results."""
    name = "train_net"
    suffix = {"yacs": "yaml", "lazy": "py"}[kind]
    where = {"yacs": ["OUTPUT_DIR", str(output)], "lazy": [f"train.output_dir={output}"]}[kind]
    config = str(CONFIGS / f"upernet_swinv2_demo.{suffix}")
    args = tool(name).parser().parse_args(["--config-file", config, *flags, *opts, *where])
    return tool(name).main(args)


EVERYTHING = {
    "yacs": [
        *("SOLVER.ACCUMULATE", "2", "SOLVER.EMA.ENABLED", "True", "TEST.AUG.ENABLED", "True"),
        *("TEST.AUG.MIN_SIZES", "(48, 64)", "TEST.BEST_METRIC", "sem_seg/mIoU"),
    ],
    "lazy": [
        *("train.accumulate=2", "train.ema.enabled=True", "train.test_aug.enabled=True"),
        *("train.test_aug.min_sizes=[48,64]", "train.best_metric=sem_seg/mIoU"),
    ],
}


@pytest.fixture(scope="module", params=["yacs", pytest.param("lazy", marks=pytest.mark.slow)])
def system(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def opts(system, request) -> list[str]:
    return request.getfixturevalue(system)


def test_the_rehearsal_does_everything_in_a_folder_of_its_own(system, opts, tmp_path):
    run(system, [*opts, *EVERYTHING[system]], tmp_path, "--fast-dev-run")
    assert [path.name for path in tmp_path.iterdir()] == ["fast_dev_run"]
    folder = tmp_path / "fast_dev_run"
    files = ("model_final.pth", "model_0000001.pth", "model_best.pth", "config.yaml")
    for name in (*files, "train_samples.jpg"):
        assert (folder / name).is_file(), name
    for suffix in ("", "_TTA"):
        results = json.loads((folder / f"inference{suffix}" / "results.json").read_text())
        assert list(results) == [f"sem_seg{suffix}"]
        assert 0 <= results[f"sem_seg{suffix}"]["mIoU"] <= 100
    log = (folder / "log.txt").read_text()
    check_titles(log, f"{NAMES[1]}{'_lazy' * (system == 'lazy')}_first_8")
    assert "in 2 parts" in log and "averaged with decay 0.9999" in log


def check_titles(log: str, dataset: str) -> None:
    """Each table of a log follows a title that names its evaluation, and so do the copied lines."""
    augmented = f"{dataset} with test-time augmentation (shorter sides 48, 64, also flipped)"
    found = re.findall(r"---- (\w.*) ----|(IoU of each class)|copypaste: Task: (\S+)", log)
    plain = [dataset, "IoU of each class", "sem_seg"]  # in the middle, and at the end
    last = [augmented, "IoU of each class", "sem_seg_TTA"]
    assert ["".join(one) for one in found] == [*plain, *plain, *last]


def few(system: str, iterations: int) -> list[str]:
    return {
        "yacs": ["SOLVER.MAX_ITER", str(iterations)],
        "lazy": [f"train.max_iter={iterations}", "train.checkpointer.period=30"],
    }[system]


@pytest.fixture(scope="module")
def trained(system, opts, tmp_path_factory) -> Path:
    """The folder of an averaged training of 60 iterations, which no test changes."""
    average = {"yacs": ["SOLVER.EMA.ENABLED", "True"], "lazy": ["train.ema.enabled=True"]}
    output = tmp_path_factory.mktemp("run")
    run(system, [*opts, *few(system, 60), *average[system]], output)
    return output


def test_a_trained_model_evaluates_resumes_and_predicts(system, opts, trained, dataset, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(trained, output)
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    last = [line for line in lines if "sem_seg/mIoU" in line][-1]

    # What the file calls its model is what was evaluated: the average.
    weights = output / "model_final.pth"
    given = {
        "yacs": ["MODEL.WEIGHTS", str(weights)],
        "lazy": [f"train.init_checkpoint={weights}"],
    }[system]
    results = run(system, [*opts, *given], tmp_path / "eval", "--eval-only")
    for metric in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert results["sem_seg"][metric] == pytest.approx(last[f"sem_seg/{metric}"], abs=1e-4)
    written = json.loads((tmp_path / "eval" / "inference" / "results.json").read_text())
    assert written["sem_seg"]["mIoU"] == results["sem_seg"]["mIoU"]

    average = {"yacs": ["SOLVER.EMA.ENABLED", "True"], "lazy": ["train.ema.enabled=True"]}[system]
    run(system, [*opts, *few(system, 64), *average], output, "--resume")
    assert torch.load(weights, weights_only=True)["iteration"] == 63

    config = CONFIGS / "upernet_swinv2_demo.py" if system == "lazy" else output / "config.yaml"
    predictor = load_predictor(str(config), [*(opts if system == "lazy" else ()), *given])
    assert list(predictor.classes.stuff)[:2] == ["background", "disc"]
    picture = cv2.imread(str(sorted(dataset.train_images.iterdir())[0]))
    found = predictor(picture)
    assert found.labels.shape == picture.shape[:2]
    assert sum(predictor.records(found)["classes"].values()) == pytest.approx(1)


def test_wider_windows_at_test_time_are_told(system, opts, trained, tmp_path):
    wider = {
        "yacs": ["MODEL.SWINV2.WINDOW_SIZE", "16", "MODEL.WEIGHTS"],
        "lazy": ["model.backbone.window_size=16"],
    }[system]
    weights = str(trained / "model_final.pth")
    given = [weights] if system == "yacs" else [f"train.init_checkpoint={weights}"]
    run(system, [*opts, *wider, *given], tmp_path / "eval", "--eval-only")
    log = (tmp_path / "eval" / "log.txt").read_text()
    assert "16, 16, 16, 16 (per stage, tokens); the weights were trained with 8, 8, 8, 8" in log
    assert "pretrained   windows 8, 8, 8, 8" in log


def test_predict_writes_class_numbers(yacs, dataset, tmp_path, monkeypatch):
    run("yacs", [*yacs, "SOLVER.MAX_ITER", "2"], tmp_path / "run")
    arguments = [
        *("predict.py", "--config-file", tmp_path / "run" / "config.yaml"),
        *("--input", dataset.train_images, "--output", tmp_path / "drawn"),
        *("MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth"),
    ]
    monkeypatch.setattr("sys.argv", [str(one) for one in arguments])
    tool("predict").main()
    (first, *_) = results = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    assert len(results) == 6
    labels = cv2.imread(str(tmp_path / "drawn" / "000001.png_labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (first["height"], first["width"]) and labels.max() < 6
    names = dataset.classes.read_text().split()
    shares = {names[n]: c / labels.size for n, c in zip(*np.unique(labels, return_counts=True))}
    assert first["classes"] == pytest.approx(shares)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.accumulat=2"], "train.accumulat: did you mean accumulate"),
        (["model.sem_seg_head.num_classes=5"], "has 6 classes.*sem_seg_head.num_classes=6"),
        (["trian.max_iter=5"], "trian.max_iter=5: the config has no trian"),
        (["datasets.trian.name=x"], "the config has no datasets.trian"),
        (["train.ema=True"], "train.ema is True, not a dict of enabled, decay"),
        (
            ["train.clip={kind: bogus, value: 1}"],
            "train.clip.kind must be one of value, norm, .*got .bogus.",
        ),
        (["train.clip={knd: value}"], "train.clip must be None or a dict with kind, value.*knd"),
        (["train.max_iter={"], "train.max_iter="),
        (["train.accumulate=3"], "train.accumulate 3 must divide.*total_batch_size 4"),
        (["train.device=cuda"], "add: train.device=cpu"),
        (["MODEL.WEIGHTS"], "key=value, got MODEL.WEIGHTS"),
        (["train.ema.decay=1.5"], r"train.ema.decay must be in \[0, 1\), got 1.5"),
    ],
)
def test_faults_of_a_lazy_config_are_named(lazy, tmp_path, overrides, words):
    if torch.cuda.is_available() and "train.device=cuda" in overrides:
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match=words):
        run("lazy", [*lazy, *overrides], tmp_path)


def test_a_lazy_config_trains_without_a_test_set(lazy, tmp_path):
    nothing = ["dataloader.test.dataset.names=[]"]
    run("lazy", [*lazy, *nothing], tmp_path, "--fast-dev-run")
    assert (tmp_path / "fast_dev_run" / "model_final.pth").is_file()
    assert not (tmp_path / "fast_dev_run" / "inference").exists()


def test_a_rehearsal_is_not_resumed(system, opts, tmp_path):
    with pytest.raises(SystemExit, match="--fast-dev-run always starts anew"):
        run(system, opts, tmp_path, "--fast-dev-run", "--resume")


def test_an_averaged_training_is_not_resumed_without_its_average(system, opts, trained):
    with pytest.raises(SystemExit, match="averaged weights.*EMA.ENABLED True.*train.ema.enabled"):
        run(system, [*opts, *few(system, 62)], trained, "--resume")


def test_a_config_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "evil.yaml").write_text(
        f"OUTPUT_DIR: !!python/object/apply:os.mkdir [{tmp_path / 'ran'}]\n"
    )
    with pytest.raises(ValueError, match="evil.yaml.*could not determine a constructor"):
        load_config(str(tmp_path / "evil.yaml"))
    assert not (tmp_path / "ran").exists()


def test_a_lazy_evaluation_without_weights_is_refused(lazy, tmp_path):
    with pytest.raises(SystemExit, match="train.init_checkpoint="):
        run("lazy", lazy, tmp_path, "--eval-only")
