"""The folder and the Python names that the documentation assumes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from commands import LAZY_CPU
from detectron2.config import LazyCall, get_cfg
from documents import BLOCKS, ROOT
from publishers import PUBLISHERS, native_state
from scenes import forms

import swinv2_backbone
from swinv2_backbone import SwinV2, SwinV2Classifier
from swinv2_backbone.d2 import add_swinv2_config
from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.demo.dataset import DemoDataset, generate_demo_dataset
from swinv2_backbone.export.exportable import exportable_model
from swinv2_backbone.export.formats import EVERY_SHAPE, FORMATS

TINY = "swinv2_tiny_window8_256"


def reader_folder(folder: Path) -> Path:
    """Fill a folder with the files that the documentation assumes, and return it."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    for block in BLOCKS:
        if block.mark == "file":
            (folder / block.detail).write_text(block.text)
    (folder / "your_config.yaml").write_text(
        "MODEL: {BACKBONE: {NAME: build_swinv2_fpn_backbone}, SWINV2: {WINDOW_SIZE: 16}}\n"
    )
    demo = generate_demo_dataset(folder / "datasets/demo", num_train=8, num_val=4, image_size=64)
    write_fruit(folder, demo)
    (folder / "fruit.yaml").write_text("_BASE_: mask_rcnn_swinv2.yaml\n")  # as of `swinv2 suggest`
    write_land(folder, demo)
    forms.labelme(folder / "labels")
    forms.yolo(folder / "yolo")
    shutil.copytree(demo.train_images, folder / "photos")
    cv2.imwrite(str(folder / "photo.jpg"), np.full((64, 96, 3), 100, np.uint8))
    write_clip(folder / "clip.mp4")
    write_scenes(folder / "scenes")
    write_outputs(folder / "output")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/demo.jpg", folder / "docs")
    write_onnx(folder / "tiny.onnx")
    torch.save(PUBLISHERS["timm"](native_state(TINY), TINY), folder / "any_file.pth")
    return folder


def write_fruit(folder: Path, demo: DemoDataset) -> None:
    """Write a dataset of three of the demo's classes, as polygons."""
    (folder / "fruit").mkdir()
    for split in ("train", "val"):
        part = demo.split(split)
        content = json.loads(part.json.read_text())
        content["categories"] = content["categories"][:3]
        known = {category["id"] for category in content["categories"]}
        content["annotations"] = [
            one
            for one in content["annotations"]
            if one["category_id"] in known and isinstance(one["segmentation"], list)
        ]
        for image in content["images"]:
            image["file_name"] = f"{split}/{image['file_name']}"
        (folder / f"fruit/{split}.json").write_text(json.dumps(content))
        shutil.copytree(part.images, folder / "fruit/photos" / split)


def write_land(folder: Path, demo: DemoDataset) -> None:
    """Write a semantic dataset: the demo's labels modulo four."""
    for split in ("train", "val"):
        part = demo.split(split)
        shutil.copytree(part.images, folder / "land/images" / split)
        (folder / "land/labels" / split).mkdir(parents=True)
        for path in part.labels.iterdir():
            labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) % 4
            cv2.imwrite(str(folder / "land/labels" / split / path.name), labels)
    (folder / "land/classes.txt").write_text("meadow\nwater\nforest\nrock\n")


def write_outputs(folder: Path) -> None:
    """Write in place of trainings what a command must find, with empty files of weights."""
    for name in ("demo/model_final.pth", "lora/merged.pth"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    (folder / "demo/config.yaml").write_text("_BASE_: mask_rcnn_swinv2_demo.yaml\n")


def write_clip(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for value in (0, 200):
        writer.write(np.full((64, 96, 3), value, np.uint8))
    writer.release()


def write_scenes(folder: Path) -> None:
    """Write images of four bands."""
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 2000, (300, 300, 4), dtype=np.uint16)
        np.save(folder / f"{number}.npy", pixels)


def write_onnx(path: Path) -> None:
    """Write a small classifier in place of a published one."""
    backbone = SwinV2(8, (1, 1), num_heads=(1, 2), window_size=4, out_features=("res3",))
    model = exportable_model(SwinV2Classifier(backbone, 3)).model
    FORMATS["onnx"].write(model, torch.zeros(2, 3, 77, 103), path, {}, EVERY_SHAPE)


def given(folder: Path) -> dict:
    """Return the names that the snippets assume."""
    cfg = get_cfg()
    add_swinv2_config(cfg)
    lazy = load_lazy_config(str(folder / "configs/mask_rcnn_swinv2.py"), [LAZY_CPU])
    trainer = SimpleNamespace(model=swinv2_backbone.build_backbone(TINY))
    images = torch.rand(1, 3, 64, 96)
    return {"cfg": cfg, "L": LazyCall, "model": lazy.model, "trainer": trainer, "images": images}
