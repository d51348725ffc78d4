"""The job itself, small: train, resume, evaluate, predict, through the tools' own entry points."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from scripts import CONFIGS, tool

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset
from swinv2_backbone.d2.demo.pictures import draw_beside_truth
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.lock import FILE, locked
from swinv2_backbone.d2.engine.step_report import NonFiniteError
from swinv2_backbone.d2.engine.trainer import load_plan
from swinv2_backbone.d2.inference.predictor import predictor_of

CONFIG = str(CONFIGS / "mask_rcnn_swinv2_demo.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DemoDataset:
    return generate_demo_dataset(
        tmp_path_factory.mktemp("data") / "demo", num_train=6, num_val=4, image_size=64
    )


@pytest.fixture(scope="module")
def opts(dataset):
    """Overrides that make the demo config tiny; its datasets are forgotten afterwards."""
    yield [
        "MODEL.DEVICE",
        "cpu",
        "MODEL.SWINV2.EMBED_DIM",
        "16",
        "MODEL.SWINV2.DEPTHS",
        "(1, 1, 1, 1)",
        "MODEL.SWINV2.NUM_HEADS",
        "(1, 2, 4, 8)",
        "MODEL.FPN.OUT_CHANNELS",
        "32",
        "MODEL.ROI_BOX_HEAD.FC_DIM",
        "64",
        "MODEL.ROI_MASK_HEAD.NUM_CONV",
        "1",
        "MODEL.ROI_MASK_HEAD.CONV_DIM",
        "32",
        "INPUT.MIN_SIZE_TRAIN",
        "(64,)",
        "INPUT.MIN_SIZE_TEST",
        "64",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "SOLVER.WARMUP_ITERS",
        "2",
        "DATASETS.CUSTOM.TRAIN.NAME",
        "tiny_train",
        "DATASETS.CUSTOM.TEST.NAME",
        "tiny_test",
        "DATASETS.CUSTOM.TRAIN.JSON",
        str(dataset.train_json),
        "DATASETS.CUSTOM.TRAIN.IMAGES",
        str(dataset.train_images),
        # Tested on what it is trained on, so that a few iterations reach a score above 0.
        "DATASETS.CUSTOM.TEST.JSON",
        str(dataset.train_json),
        "DATASETS.CUSTOM.TEST.IMAGES",
        str(dataset.train_images),
    ]
    for name in ("tiny_train", "tiny_test"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def run(opts: list[str], output: Path, *flags: str):
    train_net = tool("train_net")
    args = train_net.parser().parse_args(
        ["--config-file", CONFIG, *flags, *opts, "OUTPUT_DIR", str(output)]
    )
    return train_net.main(args)


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(opts, tmp_path_factory) -> Path:
    """The output folder of a run of 80 iterations on six images."""
    output = tmp_path_factory.mktemp("run")
    run([*opts, "SOLVER.MAX_ITER", "80", "SOLVER.CHECKPOINT_PERIOD", "40"], output)
    return output


def test_a_folder_in_use_is_refused_to_a_training_and_not_to_an_evaluation(trained, opts, tmp_path):
    with locked(tmp_path):
        with pytest.raises(SystemExit, match="FolderInUseError: the output folder .* is in use"):
            run(opts, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [FILE]
        weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
        assert run([*opts, *weights], tmp_path, "--eval-only")


def test_training_loss_falls(trained):
    losses = [line["total_loss"] for line in metrics(trained) if "total_loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_training_leaves_what_users_look_for(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"model_final.pth", "last_checkpoint", "config.yaml", "metrics.json", "log.txt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)  # TensorBoard


def test_summary_precedes_the_first_iteration(trained):
    log = (trained / "log.txt").read_text()
    summary, training = log.index("pretrained "), log.index("Starting training")
    assert summary < training
    for words in (
        "8, 8, 8, 8",
        "custom size: 16 channels",
        "of them trainable",
        "tiny_train: 6 images",
        "nothing (random initialization)",
        "float32",
    ):
        assert words in log[:training], words


def test_eval_only_reproduces_the_last_evaluation_of_training(trained, opts, tmp_path):
    last = [line for line in metrics(trained) if "bbox/AP" in line][-1]
    results = run(
        [*opts, "MODEL.WEIGHTS", str(trained / "model_final.pth")], tmp_path, "--eval-only"
    )
    assert results["bbox"]["AP50"] > 0
    for kind in ("bbox", "segm"):
        for name, value in results[kind].items():
            before = last[f"{kind}/{name}"]
            assert value == before or math.isnan(value) and math.isnan(before), (kind, name)


def test_resume_continues_the_iteration_count(trained, opts, tmp_path):
    few = [*opts, "SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "0"]
    run([*few, "SOLVER.MAX_ITER", "3"], tmp_path)
    run([*few, "SOLVER.MAX_ITER", "6"], tmp_path, "--resume")
    assert [line["iteration"] for line in metrics(tmp_path) if "total_loss" in line] == [2, 5]
    assert "Starting training from iteration 3" in (tmp_path / "log.txt").read_text()
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert state["iteration"] == 5


def test_a_checkpoint_without_the_optimizers_state_is_not_resumed(opts, tmp_path):
    few = [*opts, "TEST.EVAL_PERIOD", "0", "SOLVER.MAX_ITER"]
    run([*few, "2"], tmp_path)
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert state["trainer"]["_trainer"]["optimizer"]["state"]
    del state["trainer"]["_trainer"]  # as Detectron2 0.6 writes them
    torch.save(state, tmp_path / "model_final.pth")
    with pytest.raises(SystemExit, match="no optimizer state.*MODEL.WEIGHTS"):
        run([*few, "4"], tmp_path, "--resume")


def test_weights_that_fit_nothing_are_refused(opts, tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(SystemExit, match="other.pth: no Swin Transformer V2 .*conv1.weight"):
        run([*opts, "MODEL.WEIGHTS", str(tmp_path / "other.pth")], tmp_path / "out")


def test_heads_of_other_classes_start_anew(trained, opts):
    """Fine-tuning a detector on classes of one's own."""
    cfg = load_config(CONFIG, [*opts, "MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    checkpointer = Checkpointer(build_model(cfg))
    checkpointer.load(str(trained / "model_final.pth"), checkpointables=[])
    # Box classes, box deltas and masks, a weight and a bias each, depend on the class count.
    assert "0 new, 0 missing, 6 of another shape" in checkpointer.report
    with pytest.raises(ValueError, match="do not cover the whole model"):
        checkpointer.require_complete()


def test_bfloat16_trains_on_the_cpu(opts, tmp_path):
    run(
        [
            *opts,
            "SOLVER.MAX_ITER",
            "4",
            "SOLVER.AMP.ENABLED",
            "True",
            "DATASETS.TEST",
            "()",
            "DATASETS.CUSTOM.TEST.JSON",
            "",
            "DATASETS.CUSTOM.TEST.IMAGES",
            "",
        ],
        tmp_path,
    )
    assert math.isfinite(metrics(tmp_path)[-1]["total_loss"])


def predict(monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, args)])
    tool("predict").main()


def test_predict_draws_pictures_and_writes_detections(trained, dataset, tmp_path, monkeypatch):
    output = tmp_path / "drawn"
    predict(
        monkeypatch,
        "--config-file",
        trained / "config.yaml",
        "--confidence",
        "0.05",
        "--input",
        dataset.train_images,
        "--output",
        output,
        "MODEL.WEIGHTS",
        trained / "model_final.pth",
    )
    results = json.loads((output / "detections.json").read_text())
    assert len(results) == 6 == len(list(output.glob("*.png")))
    found = [one for image in results for one in image["detections"]]
    assert found
    for one in found:
        assert one["category"] in {"disc", "square", "triangle", "star", "ring"}
        assert 0.05 <= one["score"] <= 1 and len(one["bbox"]) == 4
    image = results[0]
    assert all(
        one["segmentation"]["size"] == [image["height"], image["width"]]
        for one in image["detections"]
    )
    assert cv2.imread(str(output / Path(image["file_name"]).name)) is not None


def test_predict_reads_video(trained, tmp_path, monkeypatch):
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64)
    )
    for value in (0, 100, 200):
        writer.write(np.full((64, 96, 3), value, np.uint8))
    writer.release()
    predict(
        monkeypatch,
        "--config-file",
        trained / "config.yaml",
        "--input",
        tmp_path / "clip.avi",
        "--output",
        tmp_path / "drawn",
        "MODEL.WEIGHTS",
        trained / "model_final.pth",
    )
    (result,) = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    assert [frame["frame"] for frame in result["frames"]] == [0, 1, 2]
    video = cv2.VideoCapture(str(tmp_path / "drawn" / "clip.mp4"))
    assert video.read()[0]


def test_predict_never_overwrites_and_never_writes_into_its_input(
    trained, dataset, tmp_path, monkeypatch
):
    arguments = (
        "--config-file",
        trained / "config.yaml",
        "--input",
        dataset.train_images,
        "--output",
    )
    with pytest.raises(SystemExit, match="^ValueError: .*folder of the input"):
        predict(monkeypatch, *arguments, dataset.train_images)
    (tmp_path / "detections.json").write_text("mine")
    with pytest.raises(SystemExit, match="^ValueError: .*--overwrite"):
        predict(monkeypatch, *arguments, tmp_path)
    assert (tmp_path / "detections.json").read_text() == "mine"


def test_predict_names_what_it_cannot_find_or_read(trained, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="^ValueError: .*nowhere"):
        predict(
            monkeypatch,
            "--config-file",
            trained / "config.yaml",
            "--input",
            tmp_path / "nowhere",
            "--output",
            tmp_path / "drawn",
        )
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(SystemExit, match="broken.png"):
        predict(
            monkeypatch,
            "--config-file",
            trained / "config.yaml",
            "--input",
            tmp_path / "broken.png",
            "--output",
            tmp_path / "drawn",
            "MODEL.WEIGHTS",
            trained / "model_final.pth",
        )


def test_demo_draws_truth_beside_prediction_and_finds_the_last_evaluation(trained, opts, tmp_path):
    weights = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    cfg = load_config(CONFIG, [*opts, *weights])
    assert draw_beside_truth(cfg, tmp_path / "pictures", count=2) == 6  # test images
    drawn = [cv2.imread(str(path)) for path in sorted((tmp_path / "pictures").iterdir())]
    assert len(drawn) == 2
    assert all(picture.shape[1] > picture.shape[0] for picture in drawn)
    assert cv2.imread(str(tmp_path / "pictures.jpg")).shape[1] > 1000  # a sheet of three columns
    assert tool("demo").last_results(trained / "metrics.json", "bbox/AP")["bbox/AP50"] > 0


def test_evaluation_and_prediction_refuse_weights_that_are_not_the_models(trained, opts, tmp_path):
    state = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    part = {name: value for name, value in state.items() if "fpn" not in name}
    part["extra"] = torch.zeros(1)
    torch.save({"model": part}, tmp_path / "part.pth")
    weights = ["MODEL.WEIGHTS", str(tmp_path / "part.pth")]
    # The pretrained windows of a size of one's own, which part.pth does not carry.
    weights += ["MODEL.SWINV2.PRETRAINED_WINDOW_SIZES", "8"]
    with pytest.raises(SystemExit, match="do not cover the whole model.*part.pth.* 16 new"):
        run([*opts, *weights], tmp_path / "out", "--eval-only")
    with pytest.raises(ValueError, match="do not cover the whole model.*part.pth.* 16 new"):
        predictor_of(load_config(str(trained / "config.yaml"), weights))


def test_evaluation_without_weights_is_refused(opts, tmp_path):
    with pytest.raises(SystemExit, match="MODEL.WEIGHTS"):
        run(opts, tmp_path, "--eval-only")


def test_the_rehearsal_of_a_detector_does_everything(opts, tmp_path):
    everything = [
        *("SOLVER.ACCUMULATE", "2", "SOLVER.EMA.ENABLED", "True", "TEST.BEST_METRIC", "segm/AP"),
        *("INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.SIZE", "64"),
        *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(48, 64)"),
    ]
    run([*opts, *everything], tmp_path, "--fast-dev-run")
    check_rehearsal(tmp_path)


def test_the_rehearsal_of_a_detector_by_a_lazy_config_does_everything(dataset, tmp_path):
    own = {"train": "lazy_tiny_train", "test": "lazy_tiny_test"}
    overrides = [
        *("train.device=cpu", f"train.output_dir={tmp_path}", "train.accumulate=2"),
        *("train.ema.enabled=True", "train.best_metric=segm/AP", "train.test_aug.enabled=True"),
        *("train.test_aug.min_sizes=[48,64]", "dataloader.train.total_batch_size=2"),
        *("model.backbone.bottom_up.embed_dim=16", "model.backbone.bottom_up.depths=[1,1,1,1]"),
        *("dataloader.train.mapper.augmentations.0.short_edge_length=[64]",),
        *("dataloader.test.mapper.augmentations.0.short_edge_length=[64]",),
        *(f"datasets.{split}.name={name}" for split, name in own.items()),
        *(f"datasets.{split}.json_file={dataset.train_json}" for split in own),
        *(f"datasets.{split}.images={dataset.train_images}" for split in own),
        *(f"dataloader.{split}.dataset.names={name}" for split, name in own.items()),
    ]
    lazy = tool("train_net")
    flags = ["--config-file", CONFIG.replace(".yaml", ".py"), "--fast-dev-run", *overrides]
    lazy.main(lazy.parser().parse_args(flags))
    check_rehearsal(tmp_path)
    with pytest.raises(SystemExit, match="roi_heads.num_classes is 7.*roi_heads.num_classes=5"):
        lazy.main(lazy.parser().parse_args([*flags, "model.roi_heads.num_classes=7"]))
    for name in list(DatasetCatalog):
        if name.startswith("lazy_tiny"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def check_rehearsal(output: Path) -> None:
    """Everything was done, in a folder of its own, with equal kinds of results in both ways."""
    assert [path.name for path in output.iterdir()] == ["fast_dev_run"]
    folder = output / "fast_dev_run"
    files = ("model_final.pth", "model_0000001.pth", "model_best.pth", "config.yaml")
    for name in (*files, "train_samples.jpg"):
        assert (folder / name).is_file(), name
    for suffix in ("", "_TTA"):
        results = json.loads((folder / f"inference{suffix}" / "results.json").read_text())
        assert set(results) == {f"bbox{suffix}", f"segm{suffix}"}
        assert 0 <= results[f"bbox{suffix}"]["AP"] <= 100
    assert json.loads((folder / "model_best.json").read_text())["metric"] == "segm/AP"


@pytest.mark.parametrize("dialect", ["yaml", "py"])
def test_a_loss_that_is_not_finite_ends_with_the_option_in_the_dialect(
    dialect, opts, tmp_path, monkeypatch
):
    def fail(*_):
        raise NonFiniteError("3 steps were skipped")

    module = tool("train_net")
    plan = load_plan(CONFIG.replace(".yaml", f".{dialect}"), _on_the_cpu(dialect))
    trainer = SimpleNamespace(resume_or_load=lambda resume: None, train=fail)
    monkeypatch.chdir(tmp_path)  # its output folder is there
    monkeypatch.setattr(module, "read_plan", lambda args: plan)
    monkeypatch.setattr(module, "setup", lambda plan, args: plan)
    monkeypatch.setattr(module, "build_trainer", lambda plan: trainer)
    keys = {"yaml": "SOLVER.MAX_NONFINITE_STEPS 0", "py": "train.max_nonfinite_steps=0"}
    with pytest.raises(SystemExit) as end:
        module.main(module.parser().parse_args([]))
    assert f"NonFiniteError: 3 steps were skipped ({keys[dialect]})" in str(end.value)


def _on_the_cpu(dialect: str) -> list[str]:
    return {"yaml": ["MODEL.DEVICE", "cpu"], "py": ["train.device=cpu"]}[dialect]
