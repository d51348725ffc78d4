"""A small training whose output folder is watched: who opens which file for writing, and how.

``python recorded_training.py DIALECT FOLDER [--resume]`` trains and evaluates by the command's own
function, and prints one JSON list per event: "open" or "rename", the path within the output folder,
its mode or new name, and the module that did it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swinv2_backbone.d2.demo import DemoDataset

STEM = "mask_rcnn_swinv2"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WRITERS = ("swinv2_backbone", "detectron2", "tensorboard", "fvcore", "iopath", "portalocker")


def watch(folder: Path, events: list[list[str]]) -> None:
    """Add the events below a folder to a list."""
    top = f"{folder}{os.sep}"

    def seen(event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename") or not isinstance(args[0], str | bytes | Path):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if not path.startswith(top):
            return
        within = path[len(top) :].replace(os.sep, "/")
        if event == "os.rename":
            target = os.path.abspath(os.fsdecode(args[1]))[len(top) :].replace(os.sep, "/")
            events.append(["rename", within, target, writer()])
        elif args[2] & WRITING:
            events.append(["open", within, args[1] or f"flags {args[2]}", writer()])

    sys.addaudithook(seen)


def writer() -> str:
    """Return the nearest module, on the stack, of one of the packages that write files."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in WRITERS:
            return name
        frame = frame.f_back
    return "another"


def config_file(dialect: str, data: Path, output: Path) -> Path:
    """Write a config of two iterations with everything on that writes a file."""
    from detectron2.config import LazyConfig
    from small_configs import lazy_config, yaml_config

    path = data / "small.yaml"
    if dialect == "lazy":
        lazy = lazy_config("mask_rcnn_swinv2", small=True)
        lazy.train.update(output_dir=str(output), init_checkpoint="", max_iter=2, eval_period=1)
        lazy.train.update(best_metric="bbox/AP", samples_picture=True, log_period=1)
        lazy.train.early_stopping.metric = "segm/AP"
        lazy.train.checkpointer.period, lazy.model.roi_heads.num_classes = 1, 2
        LazyConfig.save(lazy, str(path))
        return path
    cfg = yaml_config("upernet_swinv2_demo" if dialect == "semantic" else STEM, small=True)
    cfg.OUTPUT_DIR = str(output)
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.STEPS = 2, 1, ()
    cfg.SOLVER.WARMUP_ITERS, cfg.TEST.EVAL_PERIOD = 1, 1
    cfg.DATALOADER.SAMPLES_PICTURE = True
    if dialect == "semantic":
        use_labels(cfg, demo_dataset(data))
    else:
        cfg.TEST.BEST_METRIC, cfg.TEST.EARLY_STOPPING.METRIC = "bbox/AP", "segm/AP"
        cfg.SOLVER.EMA.ENABLED = True
        use_mended_dataset(cfg, demo_dataset(data))
    path.write_text(cfg.dump(), encoding="utf-8")
    return path


def demo_dataset(data: Path) -> DemoDataset:
    from swinv2_backbone.d2.demo.dataset import generate_demo_dataset

    return generate_demo_dataset(data / "demo", num_train=4, num_val=2, image_size=64)


def use_labels(cfg: Any, demo: DemoDataset) -> None:
    custom = cfg.DATASETS.CUSTOM
    custom.NAMES = str(demo.classes)
    custom.TRAIN.LABELS, custom.TRAIN.IMAGES = str(demo.train_labels), str(demo.train_images)
    custom.TEST.LABELS, custom.TEST.IMAGES = str(demo.val_labels), str(demo.val_images)


def use_mended_dataset(cfg: Any, demo: DemoDataset) -> None:
    """Give a config a COCO file to mend, so that the copy is written."""
    content = json.loads(demo.val_json.read_text(encoding="utf-8"))
    for one in content["annotations"]:
        one["id"] = str(one["id"])
    demo.val_json.write_text(json.dumps(content), encoding="utf-8")
    custom = cfg.DATASETS.CUSTOM
    custom.TRAIN.JSON, custom.TRAIN.IMAGES = str(demo.train_json), str(demo.train_images)
    custom.TEST.JSON, custom.TEST.IMAGES = str(demo.val_json), str(demo.val_images)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.INPUT.MASK_FORMAT = 5, "bitmask"


def main(dialect: str, folder: Path, *more: str) -> None:
    events: list[list[str]] = []
    output, data = folder / "output", folder / "data"
    watch(output, events)
    data.mkdir(exist_ok=True)
    import torch
    from detectron2.data import MetadataCatalog
    from small_configs import register_small_datasets

    from swinv2_backbone.cli import train_net
    from swinv2_backbone.cli.training_options import parser

    torch.set_num_threads(1)
    register_small_datasets(data)
    MetadataCatalog.get("small_detection").evaluator_type = "coco"  # without a COCO file
    file = data / "small.yaml"
    if not more:
        config_file(dialect, data, output)
    changes = ["train.max_iter=3"] if dialect == "lazy" else ["SOLVER.MAX_ITER", "3"]
    given = ["--config-file", str(file), *more, *(changes if more else [])]
    train_net.main(parser().parse_args(given))
    (folder / f"events{len(more)}.json").write_text(json.dumps(events), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
