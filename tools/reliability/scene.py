"""A training so small that it takes seconds, as files: images, COCO JSON, and both dialects.

Everything that could make a resumed training differ is on: drop path, augmentation, sampling of
proposals, images of several sizes, an average of the weights, and evaluations in between.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIZES = ((64, 96), (96, 64), (64, 80))  # height, width
BOXES = ((10, 10, 30, 20), (20, 30, 30, 25))  # x, y, width, height
ITERATIONS = 12  # of a training, unless changed
TESTED = 3  # images that are evaluated on, the first ones
DIALECTS = ("yaml", "lazy")


@dataclass(frozen=True)
class Scene:
    """The files of a training in a folder.

    Attributes:
        folder: Folder of the images, the annotations and both configs.
    """

    folder: Path

    def command(
        self, output: Path, dialect: str = "yaml", *flags: str, **changes: Any
    ) -> list[str]:
        """Return the arguments of ``swinv2 train``.

        Args:
            flags: options of the command, such as ``--resume``.
            changes: some of ``OPTIONS``, by their short names.
        """
        pairs = {"output": output, **changes}.items()
        if dialect == "yaml":
            words = [word for name, value in pairs for word in (OPTIONS[name][0], str(value))]
            return ["--config-file", str(self.folder / "train.yaml"), *flags, *words]
        words = [f"{OPTIONS[name][1]}={value}" for name, value in pairs]
        return ["--config-file", str(self.folder / "train.py"), *flags, *words]

    @property
    def images(self) -> list[Path]:
        return sorted(self.folder.glob("*.png"))


OPTIONS = {  # short name -> the keys of both dialects
    "output": ("OUTPUT_DIR", "train.output_dir"),
    "iterations": ("SOLVER.MAX_ITER", "train.max_iter"),
    "period": ("SOLVER.CHECKPOINT_PERIOD", "train.checkpointer.period"),
    "kept": ("SOLVER.CHECKPOINTS_KEPT", "train.checkpointer.max_to_keep"),
    "evaluate": ("TEST.EVAL_PERIOD", "train.eval_period"),
    "workers": ("DATALOADER.NUM_WORKERS", "dataloader.train.num_workers"),
    "rate": ("SOLVER.BASE_LR", "optimizer.params.lr"),
    "skips": ("SOLVER.MAX_NONFINITE_STEPS", "train.max_nonfinite_steps"),
    "broken": ("DATALOADER.MAX_BROKEN_IMAGES", "dataloader.train.max_broken"),
    "minutes": ("SOLVER.TIME_LIMIT", "train.time_limit"),
    "weights": ("MODEL.WEIGHTS", "train.init_checkpoint"),
}


def write_scene(folder: Path, count: int = 8) -> Scene:
    """Write images with two objects each, their annotations, and a config of each dialect."""
    folder.mkdir(parents=True, exist_ok=True)
    records, objects = [], []
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        write_image(folder / f"{number}.png", height, width, number)
        records.append({"id": number, "file_name": f"{number}.png"})
        records[-1] |= {"height": height, "width": width}
        objects += [_object(number, category, *box) for category, box in enumerate(BOXES)]
    categories = [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    for name, part in (("objects.json", records), ("test.json", records[:TESTED])):
        known = [one for one in objects if one["image_id"] < len(part)]
        content = {"images": part, "annotations": known, "categories": categories}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name, text in (("train.yaml", YAML), ("train.py", LAZY)):
        text = text.replace("FOLDER", str(folder)).replace("CONFIGS", str(CONFIGS))
        (folder / name).write_text(text, encoding="utf-8")
    return Scene(folder)


def write_image(path: Path, height: int, width: int, seed: int) -> None:
    """Write noise with a brighter rectangle."""
    noise = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    noise[10:30, 10:40] += 100
    Image.fromarray(noise).save(path)


def _object(image: int, category: int, x: int, y: int, width: int, height: int) -> dict:
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        **{"id": 2 * image + category + 1, "image_id": image, "category_id": category},
        **{"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0},
        "segmentation": [corners],
    }


YAML = """\
_BASE_: CONFIGS/mask_rcnn_swinv2.yaml
MODEL:
  DEVICE: cpu
  WEIGHTS: ""
  SWINV2:
    VARIANT: null
    EMBED_DIM: 16
    DEPTHS: [1, 1, 1, 1]
    NUM_HEADS: [1, 2, 4, 8]
    WINDOW_SIZE: 4
  FPN: {OUT_CHANNELS: 32}
  RPN:
    PRE_NMS_TOPK_TRAIN: 40
    PRE_NMS_TOPK_TEST: 40
    POST_NMS_TOPK_TRAIN: 20
    POST_NMS_TOPK_TEST: 20
  ROI_HEADS: {BATCH_SIZE_PER_IMAGE: 16, NUM_CLASSES: 2}
  ROI_BOX_HEAD: {FC_DIM: 64}
  ROI_MASK_HEAD: {CONV_DIM: 32}
INPUT: {MIN_SIZE_TRAIN: [64], MAX_SIZE_TRAIN: 96, MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}
DATASETS:
  CUSTOM:
    TRAIN: {JSON: FOLDER/objects.json, IMAGES: FOLDER}
    TEST: {JSON: FOLDER/test.json, IMAGES: FOLDER}
DATALOADER: {NUM_WORKERS: 0}
SOLVER:
  IMS_PER_BATCH: 2
  STEPS: []
  WARMUP_ITERS: 2
  MAX_ITER: 12
  CHECKPOINT_PERIOD: 3
  LOG_PERIOD: 2
  EMA: {ENABLED: true}
  AMP: {ENABLED: false}
TEST: {EVAL_PERIOD: 5}
SEED: 7
"""

LAZY = """\
from detectron2.config import LazyCall as L, LazyConfig

from swinv2_backbone.d2 import register_coco

_base = LazyConfig.load("CONFIGS/mask_rcnn_swinv2.py")
model, dataloader, optimizer = _base.model, _base.dataloader, _base.optimizer
lr_multiplier, train = _base.lr_multiplier, _base.train
datasets = dict(
    train=L(register_coco)(name="small", json_file="FOLDER/objects.json", images="FOLDER"),
    test=L(register_coco)(name="small_test", json_file="FOLDER/test.json", images="FOLDER"),
)
model.backbone.bottom_up.update(
    variant=None, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4
)
model.backbone.out_channels = 32
model.proposal_generator.update(pre_nms_topk=[40, 40], post_nms_topk=[20, 20])
model.roi_heads.update(batch_size_per_image=16, num_classes=2)
model.roi_heads.box_head.fc_dims = [64, 64]
model.roi_heads.mask_head.conv_dims = [32] * 5
for _loader, _name in ((dataloader.train, "small"), (dataloader.test, "small_test")):
    _loader.dataset.names, _loader.num_workers = _name, 0
    for _step in _loader.mapper.augmentations:
        if "short_edge_length" in _step:
            _step.update(short_edge_length=[64], max_size=96)
dataloader.train.total_batch_size = 2
train.update(device="cpu", init_checkpoint="", max_iter=12, eval_period=5, seed=7)
train.update(log_period=2, checkpointer=dict(period=3), ema=dict(enabled=True))
train.amp = dict(enabled=False)
"""
